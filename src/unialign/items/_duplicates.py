"""Find items with equal texts or equal files, and join them into groups.

Shapes: `N` items.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unialign.errors import MediaError
from unialign.io import CHUNK_BYTES
from unialign.items._items import Items
from unialign.media import Cell, OpenFiles, load_cell, open_cell, with_retries

__all__ = ["content_codes", "joined_groups", "normalized_text", "text_codes"]


def normalized_text(text: str) -> str:
    """Return the text in Unicode NFKC, case-folded, with single spaces and without final punctuation."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".!?")


def text_codes(items: Items, modality: str) -> NDArray[np.int64]:
    """Return (N,) codes, which are equal for items with equal texts; -1 for absent, blank and broken cells.

    Raises:
        DataError: the machine or file system failed, even after several attempts.
    """

    def key_of(cell: Cell, files: OpenFiles) -> str | None:
        text = load_cell(cell, "text", roots=items.roots, files=files)
        return normalized_text(text) or None if isinstance(text, str) else None

    return _codes(items, modality, key_of)


def content_codes(items: Items, modality: str) -> NDArray[np.int64]:
    """Return (N,) codes, which are equal for items whose cells have the same bytes; -1 for absent and broken cells.

    Raises:
        DataError: the machine or file system failed, even after several attempts.
    """

    def key_of(cell: Cell, files: OpenFiles) -> bytes:
        hasher = hashlib.sha256(repr(cell.span).encode())
        with open_cell(cell, roots=items.roots, files=files) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
        return hasher.digest()

    return _codes(items, modality, key_of)


def joined_groups(codes: Iterable[NDArray[np.int64]], items: int) -> NDArray[np.int64]:
    """Return (N,) group numbers, each the row number of the first item of the group. Items with an equal code of at
    least 0 are in one group, directly or through other items.
    """
    connections = [(np.flatnonzero(code_N >= 0), code_N[code_N >= 0]) for code_N in codes]
    group_N = np.arange(items, dtype=np.int64)
    while True:
        before_N = group_N.copy()
        for rows, code in connections:
            if len(rows):
                lowest = np.full(int(code.max()) + 1, items, dtype=np.int64)
                np.minimum.at(lowest, code, group_N[rows])
                group_N[rows] = lowest[code]
        group_N = group_N[group_N]  # shorten chains, so that few passes are needed
        if np.array_equal(before_N, group_N):
            return group_N


def _codes(items: Items, modality: str, key_of: Callable[[Cell, OpenFiles], str | bytes | None]) -> NDArray[np.int64]:
    cells, index_N = items.column(modality)
    numbers: dict[str | bytes, int] = {}
    code_of = np.full(len(cells) + 1, -1, dtype=np.int64)  # the last entry is for absent cells
    # Keep files open; otherwise, a table would be opened again for each of its rows.
    with OpenFiles() as files:
        for place, cell in enumerate(cells):
            try:
                key = with_retries(partial(key_of, cell, files), cell.where)
            except MediaError:
                continue
            if key is not None:
                code_of[place] = numbers.setdefault(key, len(numbers))
    return code_of[index_N]
