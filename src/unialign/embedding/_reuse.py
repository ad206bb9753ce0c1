"""Copy parts from a store instead of encoding their cells again."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from unialign.data import THUMBNAILS, EmbeddingStore, Thumbnails
from unialign.embedding._assemble import BROKEN, FILES, ITEMS, MARKS
from unialign.embedding._part_file import BrokenCell, Marks, Part
from unialign.embedding._plan import Plan
from unialign.io import canonical_json

__all__ = ["is_reusable", "stored_marks", "stored_parts"]


def is_reusable(store: EmbeddingStore, plan: Plan, column: str) -> bool:
    """Return whether the column was computed from the same cells, with the same encoder and settings."""
    provenance = store.provenance
    entry: Any = provenance.get("columns", {}).get(column)
    stored: Any = provenance.get("plan")
    if not isinstance(entry, Mapping) or not isinstance(stored, Mapping) or ITEMS not in store.assets:
        return False
    planned, made = plan.columns[column], entry.get("input")
    return (
        isinstance(made, Mapping)
        and entry.get("fingerprint") == planned.encoder
        and made.get("cells_sha256") == planned.cells_sha256
        and made.get("cells") == planned.cells
        and stored.get("settings") == json.loads(canonical_json(plan.settings.to_json()))
    )


def stored_marks(store: EmbeddingStore, column: str | None = None) -> Iterator[tuple[int, Marks]]:
    """Yield parts with files, and the marks of their files when they were read."""
    for line in _lines(store, MARKS):
        if column in (None, line["modality"]):
            yield line["part"], {file: (size, time) for file, size, time in line["files"]}


def stored_parts(store: EmbeddingStore, plan: Plan, column: str, *, with_broken: bool) -> Iterator[tuple[int, Part]]:
    numbers, row_n = _first_rows(store, column)
    broken = [
        BrokenCell(numbers[_key(line["source"])], line["code"], line["detail"])
        for line in _lines(store, BROKEN)
        if line["modality"] == column
    ]
    hashes = {
        numbers[_key(line["source"])]: str(line["sha256"])
        for line in _lines(store, FILES)
        if line["modality"] == column
    }
    marks = dict(stored_marks(store, column))
    array_NW, present_N = store.array(column), store.present(column)
    with _images(store, column) as images:
        for number in range(plan.parts(column)):
            cells = plan.cells_of(column, number)
            own = [entry for entry in broken if entry.cell in cells]
            if own and not with_broken:
                continue
            found = np.array([cell for cell in cells if present_N[row_n[cell]]], np.int64)
            thumbnails = None
            if images is not None:
                thumbnails = [(images.read(column, int(row)) or (b"", ""))[0] for row in row_n[found]]
            part = Part(
                cells=found,
                features=np.asarray(array_NW[row_n[found]]),
                thumbnails=thumbnails,
                broken=own,
                marks=marks.get(number, {}),
                hashes={cell: hashes[cell] for cell in cells if cell in hashes},
            )
            yield number, part


@contextlib.contextmanager
def _images(store: EmbeddingStore, column: str) -> Iterator[Thumbnails | None]:
    if THUMBNAILS not in store.assets:
        yield None
        return
    with store.open_asset(THUMBNAILS) as file:
        images = Thumbnails(file, f"{THUMBNAILS} of {store.name!r}")
        yield images if column in images.modalities else None


def _first_rows(store: EmbeddingStore, column: str) -> tuple[dict[bytes, int], Any]:
    """Number cells in order of first appearance, and return the first row of each."""
    numbers: dict[bytes, int] = {}
    rows: list[int] = []
    for row, item in enumerate(_lines(store, ITEMS)):
        cell = item["cells"].get(column)
        if cell is not None and (key := _key(cell)) not in numbers:
            numbers[key] = len(rows)
            rows.append(row)
    return numbers, np.array(rows, np.int64)


def _lines(store: EmbeddingStore, asset: str) -> Iterator[Any]:
    if asset in store.assets:
        with store.open_asset(asset) as file:
            yield from map(json.loads, file)


def _key(cell: Mapping[str, Any]) -> bytes:
    return canonical_json(cell)
