"""Read word vectors in text format (word2vec, fastText, GloVe): words are ids, and the numbers form one matrix."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.readers._entry import ArrayEntry, EmbeddingFile, unreadable
from unialign.readers._rows import StreamRows, rows_per_chunk
from unialign.readers._text import text_format, text_lines

__all__ = ["Word2VecReader"]

Array = NDArray[Any]


class Word2VecReader:
    """Reader of lines with a word and its vector, after an optional header "N D"."""

    name = "word2vec"
    suffixes = (".vec",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return text_format(path, head) == "word2vec"

    def open(self, path: Path) -> EmbeddingFile:
        lines = text_lines(path)
        first = next(lines, "")
        header = re.fullmatch(r"(\d{1,18}) (\d{1,9})\s*", first)
        dim = int(header[2]) if header else len(first.rstrip().split(" ")) - 1
        counted = sum(1 for line in lines if line.strip()) + (header is None)
        if header and int(header[1]) != counted:
            raise DataError(
                f"{path}: its first line declares {int(header[1]):,} words, but the file has {counted:,}, so it is "
                "truncated; write it again"
            )
        shape = (counted, dim)
        chunks = partial(_chunks, path, dim, header is not None)
        rows = partial(StreamRows, chunks, shape, "<f4")
        words = partial(_words, path, dim, header is not None)
        matrix = ArrayEntry("", shape, "<f4", rows, lambda: np.concatenate([np.empty((0, dim), np.float32), *chunks()]))
        return EmbeddingFile.at(
            path, self.name, [matrix, *(ArrayEntry(key, (counted,), "<U1", unreadable, words) for key in _KEYS)]
        )


_KEYS = ("ids", "names")


def _words(path: Path, dim: int, has_header: bool) -> Array:
    return np.array([word for _, word, _ in _split(path, dim, has_header)], np.str_)


def _chunks(path: Path, dim: int, has_header: bool) -> Iterator[Array]:
    rows: list[list[str]] = []
    step = rows_per_chunk(dim * 64)
    first = 1
    for number, _, cells in _split(path, dim, has_header):
        rows.append(cells)
        if len(rows) == step:
            yield _floats(rows, path, first)
            rows, first = [], number + 1
    if rows:
        yield _floats(rows, path, first)


def _split(path: Path, dim: int, has_header: bool) -> Iterator[tuple[int, str, list[str]]]:
    for number, line in enumerate(text_lines(path), 1):
        if (number == 1 and has_header) or not line.strip():
            continue
        # Words may contain spaces.
        word, *cells = line.rstrip("\r\n ").rsplit(" ", dim)
        if len(cells) != dim:
            raise DataError(f"{path}, line {number} has {len(cells)} numbers, expected {dim}; write the file again")
        yield number, word, cells


def _floats(rows: list[list[str]], path: Path, first: int) -> Array:
    try:
        return np.array(rows, np.float64).astype(np.float32)
    except ValueError as error:
        raise DataError(f"{path}, in line {first} or a later line: {error}; write the file again") from None
