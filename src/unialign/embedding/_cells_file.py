"""Join the parts of a column into one file of features.

Shapes: `n` cells of a column, `W` dimension of the features.
"""

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from unialign.embedding._part_file import BrokenCell, Part
from unialign.embedding._plan import Plan
from unialign.embedding._thumbnail import has_thumbnail
from unialign.embedding._work_folder import WorkFolder
from unialign.errors import CheckpointError
from unialign.io import NpyAppender

__all__ = ["CellsFile", "join_parts"]


@dataclass(frozen=True, eq=False)
class CellsFile:
    """Features and thumbnails of all cells of a column; features of broken cells are 0.

    The file `marks` has a JSON line for each part with files: their sizes and modification times.
    """

    features: NDArray[Any]
    encoded: NDArray[np.bool_]
    broken: Sequence[BrokenCell]
    hashes: dict[int, str]
    images: "_Images | None"
    marks: Path

    def thumbnail(self, cell: int) -> bytes | None:
        return None if self.images is None else self.images.read(cell)

    def close(self) -> None:
        if self.images is not None:
            self.images.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Images:
    def __init__(self, path: Path, ends_n: NDArray[np.int64], sizes_n: NDArray[np.int64]) -> None:
        self._ends_n, self._sizes_n = ends_n, sizes_n
        self._file = path.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if sizes_n.any() else b""

    def read(self, cell: int) -> bytes | None:
        end, size = int(self._ends_n[cell]), int(self._sizes_n[cell])
        return self._map[end - size : end] if size else None

    def close(self) -> None:
        self._file.close()


def join_parts(plan: Plan, column: str, folder: WorkFolder) -> CellsFile:
    """Read one part at a time; a part may have its cells in any order."""
    planned = plan.columns[column]
    path = folder.cells_folder / f"{column}.npy"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    encoded_n, sizes_n = np.zeros(planned.cells, np.bool_), np.zeros(planned.cells, np.int64)
    broken: list[BrokenCell] = []
    hashes: dict[int, str] = {}
    writer = NpyAppender(path, np.dtype(plan.settings.dtype), planned.dim)
    images, marks = path.with_suffix(".webp"), path.with_suffix(".jsonl")
    has_images = plan.settings.thumbnails is not None and has_thumbnail(planned.media)
    try:
        with images.open("wb") as target, marks.open("w", encoding="utf-8") as lines:
            for number in range(plan.parts(column)):
                part = folder.read_part(plan, column, number)
                if part is None:
                    raise CheckpointError(
                        f"{folder.part_file(column, number)} was altered or removed during the run; repeat the call to "
                        "compute it again"
                    )
                cells = plan.cells_of(column, number)
                rows_nW = np.zeros((len(cells), planned.dim), plan.settings.dtype)
                rows_nW[part.cells - cells.start] = part.features
                encoded_n[part.cells] = True
                writer.append(rows_nW)
                broken += part.broken
                hashes |= part.hashes
                lines.write(_marks_line(column, number, part) if part.marks else "")
                if has_images and part.thumbnails is not None:
                    sizes_n[part.cells] = [len(image) for image in part.thumbnails]
                    target.writelines(part.thumbnails)
    finally:
        writer.close()
    return CellsFile(
        features=np.lib.format.open_memmap(path, mode="r"),
        encoded=encoded_n,
        broken=broken,
        hashes=hashes,
        images=_Images(images, np.cumsum(sizes_n), sizes_n) if has_images else None,
        marks=marks,
    )


def _marks_line(column: str, number: int, part: Part) -> str:
    files = [[file, *mark] for file, mark in sorted(part.marks.items())]
    return json.dumps({"modality": column, "part": number, "files": files}) + "\n"
