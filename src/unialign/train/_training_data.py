"""Validate the training rows of a store, and return batches of them.

Shapes: `N` training rows, `B` rows of a batch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._invalid_rows import first_bad_row
from unialign._plain_text import count
from unialign.data import EmbeddingStore, row_blocks
from unialign.errors import DataError, NonFiniteError
from unialign.space import Space
from unialign.train._features import Features, LoadedFeatures, StreamedFeatures

# Features up to this size are kept in memory, so that they are normalized only once.
_IN_MEMORY_BYTES = 1 << 27
# Kernel features up to this size are kept in memory, since computing them again for each batch is slow.
_KERNEL_BYTES = 1 << 30
# Fraction of a CUDA device's free memory for features, since reading them for each step would slow the device down.
_FREE_DEVICE_MEMORY = 0.25
_CHECKED_ENTRIES = 1 << 18

# Inputs of the rows of a batch by modality. Slices of all inputs are the inputs of a micro-batch.
Inputs = Mapping[str, Any]


class TrainingData:
    """Batches on the training device; `rows` are the (N,) store rows."""

    def __init__(
        self,
        store: EmbeddingStore,
        modalities: Sequence[str],
        rows: NDArray[np.int64],
        features: Features,
        device: torch.device,
    ) -> None:
        self.store, self.rows, self.features, self._device = store, rows, features, device
        self._masks = {name: store.present(name) for name in modalities if _has_absent(store, name, rows)}
        self._ids = store.ids if _has_repeated_ids(store, rows) else None
        self._read = 0, 0

    def batch(
        self, positions_B: Tensor, *, step: int, number: int
    ) -> tuple[Inputs, dict[str, Tensor] | None, Tensor | None]:
        """Return inputs, presence (None if all are present) and ids (None if all differ) of rows of batch `number` of a
        step.
        """
        present, ids = None, None
        if self._masks or self._ids is not None:
            rows_B = self.rows[positions_B.numpy()]
            present = {name: torch.from_numpy(mask[rows_B]).to(self._device) for name, mask in self._masks.items()}
            ids = None if self._ids is None else torch.from_numpy(self._ids[rows_B]).to(self._device)
        return self.features.take(positions_B, present or {}), present or None, ids

    def prepared(self, inputs: Inputs, present: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the features of a micro-batch after input normalization, the inputs of `Space.project`."""
        return dict(inputs)

    def read_ahead(self, step: int, ahead: Callable[[int], tuple[Tensor, int]]) -> None:
        """`ahead` returns the rows of as many whole steps as fit (at least one), and the following step."""
        size = self.features.stage_size()
        if size and not self._read[0] <= step < self._read[1]:
            positions, end = ahead(size)
            self.features.stage(positions)
            self._read = step, end

    def describe(self, position: int) -> str:
        """Return the row number in the store and the item name."""
        return _describe_row(self.store, int(self.rows[position]))


def training_rows(store: EmbeddingStore, modalities: Sequence[str]) -> NDArray[np.int64]:
    rows = store.rows("train")
    if len(rows) < 2:
        raise DataError(
            f"the data {store.name!r} has {count(len(rows), 'training row')}; training needs at least 2 (see `split`)"
        )
    for name in modalities:
        if not store.present(name)[rows].any():
            raise DataError(
                f"{name!r} is absent from all {len(rows)} training rows of {store.name!r}; omit this modality"
            )
    return rows


def load_training_data(
    store: EmbeddingStore,
    space: Space,
    rows: NDArray[np.int64],
    device: torch.device,
    *,
    modalities: Sequence[str],
    is_fitted: bool,
    computed: Collection[str] = (),
) -> TrainingData:
    """Load small features into memory as float32. The space may have further modalities, and the features of `computed`
    modalities are not read.
    """
    stored = [name for name in modalities if name not in computed]
    for name in stored:
        if not (is_fitted and _is_known_finite(store, space, name)):
            _check(store, name, rows, reject_zeros=space.input_norm != "standardize")
    features: Features
    kernels = space.kernel_sizes or {}
    widths = {name: kernels[name][1] if name in kernels else store.dim(name) for name in stored}
    least = _IN_MEMORY_BYTES if space.kernel_sizes is None else _KERNEL_BYTES
    if 4 * len(rows) * sum(widths.values()) <= _memory_for_features(device, least):
        masks = {name: store.present(name)[rows] for name in stored if _has_absent(store, name, rows)}
        features = LoadedFeatures(store, space, stored, rows, masks, device)
    else:
        features = StreamedFeatures(store, space, stored, rows, device)
    return TrainingData(store, modalities, rows, features, device)


def _memory_for_features(device: torch.device, least: int) -> float:
    if device.type == "cuda":
        return max(least, _FREE_DEVICE_MEMORY * torch.cuda.mem_get_info(device)[0])
    return least


def _has_absent(store: EmbeddingStore, name: str, rows: NDArray[np.int64]) -> bool:
    return not bool(store.present(name)[rows].all())


def _has_repeated_ids(store: EmbeddingStore, rows: NDArray[np.int64]) -> bool:
    if not store.has_ids:
        return False
    ids_N = store.ids[rows]
    ids_N.sort()
    return bool((ids_N[1:] == ids_N[:-1]).any())


def _is_known_finite(store: EmbeddingStore, space: Space, name: str) -> bool:
    """Finite statistics imply that all rows are finite."""
    if space.input_norm != "standardize" or store.array(name).dtype.itemsize > 4:
        # Without standardization, zero rows must be rejected; float64 numbers may exceed the range of float32.
        return False
    return all(bool(torch.isfinite(x).all()) for x in space.features[space.modalities.index(name)].buffers())


def _check(store: EmbeddingStore, name: str, rows: NDArray[np.int64], *, reject_zeros: bool) -> None:
    array_NW, present_N = store.array(name), store.present(name)
    problem, others = None, 0
    for part, raw_bW in row_blocks(array_NW, rows, max(1, _CHECKED_ENTRIES // array_NW.shape[1])):
        x_bW = torch.from_numpy(np.array(raw_bW)).float()
        usable_b = torch.isfinite(x_bW).all(1)
        if reject_zeros:
            usable_b &= x_bW.any(1)
        bad = first_bad_row(x_bW, torch.from_numpy(present_N[rows[part]]) & ~usable_b)
        if bad is None:
            continue
        others += bad.others + (problem is not None)
        if problem is None:
            row = int(rows[part][bad.row])
            # Report the stored number, since the conversion to float32 may have made it infinite.
            what = "only zeros" if bad.column is None else f"{array_NW[row, bad.column]} at column {bad.column}"
            problem = f"{name!r}, {_describe_row(store, row)}, holds {what}"
    if problem is not None:
        more = f" ({others} more such rows)" if others else ""
        raise NonFiniteError(f"{problem}{more}; mark items without {name!r} as absent in the store")


def _describe_row(store: EmbeddingStore, row: int) -> str:
    return f"row {row} of the store ({store.item_name(row)!r})"
