"""Indexes in memory and random items, for tests of searches."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from unialign.index import Index
from unialign.index._calibration import Calibration, uncorrected
from unialign.index._storage import Storage

NAMES = ("audio", "image", "text")
METHODS = ("none", "center", "coral", "center_csls")
Items = dict[str, dict[str, np.ndarray]]


def unit_rows(rng: np.random.Generator, rows: int, dim: int, shift: np.ndarray | float = 0.0) -> np.ndarray:
    z = rng.standard_normal((rows, dim)) + shift
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def correction_of(method: str, rng: np.random.Generator, dim: int, names: Sequence[str] = NAMES) -> Calibration:
    if method == "none":
        return uncorrected(tuple(names), "test")
    weight, reference_rows = {}, {}
    bias = {name: torch.from_numpy(0.3 * rng.standard_normal(dim) / dim**0.5) for name in names}
    if method == "coral":
        weight = {name: torch.from_numpy(rng.standard_normal((dim, dim)) / dim**0.5) for name in names}
    if method == "center_csls":
        reference_rows = {
            name: torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((30, dim))), dim=1)
            for name in names
        }
    return Calibration(method, "test", tuple(names), weight, bias, reference_rows)


def build(
    items: Mapping[str, Mapping[str, np.ndarray]],
    correction: Calibration,
    *,
    parts: int = 1,
    deleted: Sequence[str] = (),
    names: Sequence[str] = NAMES,
    metadata: bool = False,
) -> Index:
    """Absent rows are NaN."""
    dim = len(next(iter(next(iter(items.values())).values())))
    storage = Storage.in_memory(tuple(names), dim)
    index = Index(storage, None)
    for keys in np.array_split(np.array(list(items), object), parts):
        rows = {name: np.full((len(keys), dim), np.nan, np.float32) for name in names}
        present = {name: np.array([name in items[key] for key in keys]) for name in names}
        for place, key in enumerate(keys):
            for name, row in items[key].items():
                rows[name][place] = row
        meta = [{"number": int(key[1:])} for key in keys] if metadata else None
        index.add(rows, present=present, keys=list(keys), metadata=meta)
    storage.set_calibration(correction)
    if deleted:
        index.delete(keys=list(deleted))
    return index


def stored(index: Index) -> Items:
    """The rows as they are stored, normalized and rounded to float32."""
    found = index.embeddings()
    return {
        key: {name: found.z[name][place] for name in found.z if found.present[name][place]}
        for place, key in enumerate(found.keys)
    }


def draw_items(rng: np.random.Generator, count: int, dim: int, names: Sequence[str] = NAMES) -> Items:
    rows = {name: unit_rows(rng, count, dim) for name in names}
    items: Items = {}
    for number in range(count):
        has = [name for name in names if rng.random() < 0.7] or [names[int(rng.integers(len(names)))]]
        items[f"k{number:04d}"] = {name: rows[name][number] for name in has}
    return items
