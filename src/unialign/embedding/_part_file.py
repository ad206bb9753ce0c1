"""Part files: the features of the cells of a part, as safetensors with one metadata entry.

Shapes: `n` cells of a part, `k` cells with features, `W` dimension.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from unialign.embedding._plan import Plan
from unialign.io import canonical_json, digest

__all__ = ["BrokenCell", "Marks", "Part", "part_bytes", "read_part"]


# Number of the root and path of a file -> size and modification time in nanoseconds.
Marks = Mapping[str, tuple[int, int]]


class BrokenCell(NamedTuple):
    """A cell without features; `code` is the reason."""

    cell: int
    code: str
    detail: str


@dataclass(frozen=True)
class Part:
    """The result of encoding a part of a column.

    Attributes:
        cells: (k,) ascending numbers of the cells with features.
        features: (k, W) in the stored dtype.
        thumbnails: k encoded images; None without thumbnails.
        broken: cells that could not be encoded.
        marks: marks of files when they were read.
        hashes: cell -> sha256 of its bytes; empty if hashes were not requested.
    """

    cells: NDArray[np.int64]
    features: NDArray[Any]
    thumbnails: Sequence[bytes] | None = None
    broken: Sequence[BrokenCell] = ()
    marks: Marks = field(default_factory=dict)
    hashes: Mapping[int, str] = field(default_factory=dict)


def part_bytes(plan: Plan, column: str, number: int, part: Part) -> bytes:
    """Serialize a part; equal parts have equal bytes."""
    tensors: dict[str, NDArray[Any]] = {"cells": part.cells, "features": np.ascontiguousarray(part.features)}
    if part.thumbnails is not None:
        tensors["thumbnail_sizes"] = np.array([len(image) for image in part.thumbnails], np.int64)
        tensors["thumbnails"] = np.frombuffer(b"".join(part.thumbnails), np.uint8)
    facts = {
        "plan": plan.column_digest(column),
        "part": number,
        "broken": [list(broken) for broken in part.broken],
        "marks": {file: list(mark) for file, mark in part.marks.items()},
        "hashes": {str(cell): sha256 for cell, sha256 in part.hashes.items()},
        "sha256": _tensors_sha256(tensors),
    }
    # safetensors writes several metadata entries in random order, so there is one.
    return safetensors.numpy.save(tensors, {"part": canonical_json(facts).decode("ascii")})


def read_part(path: Path, plan: Plan, column: str, number: int) -> Part | None:
    """Return None if the file is damaged or belongs to another part."""
    try:
        with safetensors.safe_open(path, "np") as file:
            facts = json.loads(file.metadata()["part"])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if facts["plan"] != plan.column_digest(column) or facts["part"] != number:
            return None
        if facts["sha256"] != _tensors_sha256(tensors):
            return None
        part = Part(
            cells=tensors["cells"],
            features=tensors["features"],
            thumbnails=_images(tensors),
            broken=[BrokenCell(int(cell), str(code), str(detail)) for cell, code, detail in facts["broken"]],
            marks={str(file): (int(size), int(time)) for file, (size, time) in facts["marks"].items()},
            hashes={int(cell): str(sha256) for cell, sha256 in facts["hashes"].items()},
        )
        return part if _fits(part, plan, column, number) else None
    except OSError:
        raise
    except Exception:  # a damaged file can raise any exception
        return None


def _fits(part: Part, plan: Plan, column: str, number: int) -> bool:
    planned = plan.cells_of(column, number)
    dim, dtype = plan.columns[column].dim, plan.settings.dtype
    known = {broken.cell for broken in part.broken}
    return (
        part.features.shape == (len(part.cells), dim)
        and part.features.dtype == dtype
        and all(cell in planned for cell in (*part.cells.tolist(), *known))
        and known.isdisjoint(part.cells.tolist())
    )


def _images(tensors: Mapping[str, NDArray[Any]]) -> list[bytes] | None:
    if "thumbnails" not in tensors:
        return None
    content, ends = tensors["thumbnails"].tobytes(), np.cumsum(tensors["thumbnail_sizes"])
    return [
        content[end - size : end] for end, size in zip(ends.tolist(), tensors["thumbnail_sizes"].tolist(), strict=True)
    ]


def _tensors_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    contents = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return digest(part for name, array in contents.items() for part in (name.encode(), array.tobytes()))
