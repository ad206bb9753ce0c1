"""Points of a map: rows of a sample of items on a plane.

A point is a row: an item in one modality. Points are numbered in a random order that depends on the index only, so that
all layouts of an index have the same numbers, and a client that draws the points in order sees a sample first.

Shapes: `n` items of the sample, `P` points, `D` dimension.
"""

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.errors import UniAlignError
from unialign.index import Index
from unialign.io import read_tensors, write_tensors

__all__ = [
    "FLAGS",
    "MapPoints",
    "corrected",
    "encode_points",
    "place_points",
    "principal_places",
    "sample_points",
    "to_units",
]

# Bits of the flags of a point.
FLAGS: Mapping[str, int] = {"hub": 1, "outlier": 2, "mispaired": 4, "copy": 8, "filtered": 16}
_RECORD = np.dtype([("x", "<u2"), ("y", "<u2"), ("modality", "u1"), ("flags", "u1")])
_UNITS = 65_535
_SEED = 0


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Points of an index at one generation.

    Attributes:
        generation: generation of the index.
        calibration: short name of the correction that was applied.
        keys, labels: keys and labels of the n items.
        item: (P,) int32 item number of each point.
        modality: (P,) uint8 modality number of each point.
        rows: modality -> number of rows of the index, including those outside the sample.
        items: number of items of the index.
        z: (P, D) float32 corrected unit rows; empty once the layout is known.
        xy: (P, 2) uint16 coordinates.
        explained: fraction of the variance on the two axes of PCA.
    """

    generation: int
    calibration: str
    keys: list[str]
    labels: list[str | None]
    item: NDArray[np.int32]
    modality: NDArray[np.uint8]
    rows: Mapping[str, int]
    items: int
    z: NDArray[np.float32]
    xy: NDArray[np.uint16]
    explained: tuple[float, float] = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def is_sample(self) -> bool:
        """Whether the index has rows that are not points of the map."""
        return len(self) < sum(self.rows.values())


def corrected(index: Index, z: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return rows in the corrected space, in which searches compare them; rows without direction are 0."""
    calibration = index.calibration
    found = {}
    for name, z_nD in z.items():
        rows = [
            torch.nan_to_num(calibration.correct(name, part)).float().numpy()
            for part in torch.split(torch.from_numpy(np.ascontiguousarray(z_nD)), 8192)
        ]
        found[name] = np.concatenate(rows) if rows else np.zeros(z_nD.shape, np.float32)
    return found


def calibration_name(index: Index) -> str:
    """Return a name of the correction that differs if its numbers differ."""
    digest = hashlib.sha256(index.calibration.method.encode())
    for name, bias_D in sorted(index.calibration.bias.items()):
        digest.update(name.encode())
        digest.update(bias_D.double().numpy().tobytes())
        if name in index.calibration.weight:
            digest.update(index.calibration.weight[name].double().numpy().tobytes())
    return digest.hexdigest()[:12]


def sample_points(index: Index, points: int) -> MapPoints:
    """Return at most `points` rows of randomly drawn whole items, in random order, without coordinates.

    Whole items are drawn, so that modalities are as frequent as in the index, and an item's modalities can be linked.
    """
    rows = dict(index.stats()["modalities"])
    total, items = sum(rows.values()), len(index)
    limit = None if total <= points else max(1, math.floor(points * items / total))
    drawn = index.embeddings(limit=limit, seed=_SEED)
    z = corrected(index, drawn.z)
    numbers = {name: np.flatnonzero(drawn.present[name]) for name in index.modalities}
    item = np.concatenate([numbers[name] for name in index.modalities]).astype(np.int32)
    modality = np.concatenate([np.full(len(numbers[name]), m, np.uint8) for m, name in enumerate(index.modalities)])
    z_PD = np.concatenate([z[name][numbers[name]] for name in index.modalities])
    # Random items have a random number of rows; cut the few that exceed the budget.
    order = np.random.default_rng(_SEED).permutation(len(item))[:points]
    return MapPoints(
        index.generation,
        calibration_name(index),
        drawn.keys,
        drawn.labels,
        item[order],
        modality[order],
        rows,
        items,
        z_PD[order],
        np.zeros((len(order), 2), np.uint16),
    )


def place_points(points: MapPoints) -> MapPoints:
    """Return the points on the first two principal axes of all rows, without their embeddings."""
    places, explained = principal_places(points.z)
    return replace(points, xy=to_units(places), explained=explained, z=np.zeros((0, points.z.shape[1]), np.float32))


def principal_places(z_PD: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return coordinates on the first two principal axes, and the fractions of the variance that they explain."""
    count, dim = z_PD.shape
    if count < 2 or dim < 2:
        return np.zeros((count, 2), np.float32), (0.0, 0.0)
    mean_D = z_PD.mean(0, dtype=np.float64)
    # Products in float32, sums over blocks in float64.
    gram_DD = np.zeros((dim, dim))
    for start in range(0, count, 8192):
        block = z_PD[start : start + 8192] - mean_D.astype(np.float32)
        gram_DD += block.T @ block
    values, vectors = np.linalg.eigh(gram_DD)
    axes_D2 = vectors[:, [-1, -2]]
    # The sign of an axis is arbitrary; fix it independently of the solver.
    axes_D2 = axes_D2 * np.where(axes_D2[np.abs(axes_D2).argmax(0), [0, 1]] < 0, -1.0, 1.0)
    total = max(float(values.clip(min=0).sum()), 1e-30)
    explained = (max(float(values[-1]), 0.0) / total, max(float(values[-2]), 0.0) / total)
    return ((z_PD - mean_D.astype(np.float32)) @ axes_D2.astype(np.float32)).astype(np.float32), explained


def to_units(places_P2: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Scale coordinates to 0 ... 65,535 with equal units on both axes; a few distant points are moved to the edge."""
    if len(places_P2) == 0:
        return np.zeros((0, 2), np.uint16)
    low, high = np.quantile(places_P2, [0.0005, 0.9995], axis=0)
    center, span = (low + high) / 2, max(float((high - low).max()), 1e-9) * 1.06
    unit = np.clip((places_P2 - center) / span + 0.5, 0.0, 1.0)
    # The y axis points down on a screen.
    unit[:, 1] = 1.0 - unit[:, 1]
    return np.asarray(np.round(unit * _UNITS), np.uint16)


def encode_points(
    xy: NDArray[np.uint16],
    modality: NDArray[np.uint8],
    flags: NDArray[np.uint8],
    item: NDArray[np.int32] | None = None,
) -> bytes:
    """Return `u32 P`, then P records `u16 x, u16 y, u8 modality, u8 flags`, little endian.

    With `item`, P numbers `u32` of items follow.
    """
    records = np.zeros(len(xy), _RECORD)
    records["x"], records["y"] = xy[:, 0], xy[:, 1]
    records["modality"], records["flags"] = modality, flags
    tail = b"" if item is None else item.astype("<u4").tobytes()
    return struct.pack("<I", len(xy)) + records.tobytes() + tail


def cached_places(index: Index, points: MapPoints, layout: str) -> NDArray[np.uint16] | None:
    """Return the coordinates that `keep_places` wrote for this state of the index, or None."""
    path = _cache_path(index, points, layout)
    if path is None or not path.is_file():
        return None
    try:
        sha256 = path.with_suffix(".sha256").read_text("ascii").strip()
        xy = read_tensors(path, sha256=sha256)["xy"].numpy()
    except (OSError, ValueError, KeyError, UniAlignError):
        return None
    return xy.astype(np.uint16) if xy.shape == (len(points), 2) else None


def keep_places(index: Index, points: MapPoints, layout: str, xy: NDArray[np.uint16]) -> None:
    """Write coordinates next to the index if its folder is writable; a layout can always be computed again."""
    path = _cache_path(index, points, layout)
    if path is None:
        return
    try:
        path.parent.mkdir(exist_ok=True)
        sha256 = write_tensors(path, {"xy": torch.from_numpy(xy.astype(np.int32))})
        path.with_suffix(".sha256").write_text(sha256, "ascii")
    except (OSError, UniAlignError):
        return


def _cache_path(index: Index, points: MapPoints, layout: str) -> Path | None:
    if index.path is None:
        return None
    state: tuple[Any, ...] = (layout, points.generation, points.calibration, len(points), _SEED)
    name = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    return index.path / "maps" / f"{name}.bin"
