"""Load, validate and normalize the training rows of a store once. Shapes: `N` training rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._invalid_rows import first_bad_row
from unialign._plain_text import count
from unialign.data import EmbeddingStore
from unialign.errors import DataError, NonFiniteError
from unialign.space import Space


@dataclass(frozen=True)
class TrainingData:
    """Training rows on the training device.

    Attributes:
        prepared: modality -> (N, W) float32 after the space's input normalization.
        present: modality -> (N,) bool, only for modalities with absent training rows.
        ids: (N,) int64, or None if all are different.
        store, rows: the store, and the store row of each training row.
    """

    prepared: dict[str, Tensor]
    present: dict[str, Tensor]
    ids: Tensor | None
    store: EmbeddingStore
    rows: NDArray[np.int64]

    def batch(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, Tensor | None]:
        """Return features, presence (None if all present) and ids (None if all differ) of the given rows."""
        features = {name: x_NW.index_select(0, rows) for name, x_NW in self.prepared.items()}
        present = {name: mask_N.index_select(0, rows) for name, mask_N in self.present.items()}
        return features, present or None, None if self.ids is None else self.ids.index_select(0, rows)

    def describe(self, position: int) -> str:
        """Return the store's row number and item name of a training row."""
        return _describe_row(self.store, int(self.rows[position]))


def training_rows(store: EmbeddingStore, modalities: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of the split "train"; DataError if they are not sufficient for these modalities."""
    rows = store.rows("train")
    if len(rows) < 2:
        raise DataError(
            f"the data {store.name!r} has {count(len(rows), 'training row')}; training needs at least 2 (see `split`)"
        )
    for name in modalities:
        if not store.present(name)[rows].any():
            raise DataError(f"{name!r} is absent from all {len(rows)} training rows of {store.name!r}; omit it")
    return rows


def load_training_data(
    store: EmbeddingStore, space: Space, rows: NDArray[np.int64], device: torch.device
) -> TrainingData:
    """Read the columns of a space's modalities into memory as float32, one modality at a time, and check their rows."""
    prepared, present = {}, {}
    for name in space.modalities:
        # Numbers beyond float32 become infinite, which `_check` reports.
        with np.errstate(over="ignore"):
            x = torch.from_numpy(store.array(name)[rows].astype(np.float32))
        mask = torch.from_numpy(store.present(name)[rows])
        _check(x, mask, name, store, rows, reject_zeros=space.input_norm != "standardize")
        x = torch.where(mask[:, None], x, 0.0).to(device)
        mask = mask.to(device)
        with torch.no_grad():
            prepared[name] = space.prepare(name, x, present=mask)
        if not bool(mask.all()):
            present[name] = mask
    ids_N = store.ids[rows]
    unique = len(np.unique(ids_N)) == len(ids_N)
    ids = None if unique else torch.from_numpy(np.array(ids_N)).to(device)
    return TrainingData(prepared, present, ids, store, rows)


def _check(
    x: Tensor, mask: Tensor, name: str, store: EmbeddingStore, rows: NDArray[np.int64], *, reject_zeros: bool
) -> None:
    finite = torch.isfinite(x).all(1)
    first = first_bad_row(x, mask & ~(finite & x.any(1) if reject_zeros else finite))
    if first is None:
        return
    row = int(rows[first.row])
    problem = "holds only zeros"
    if first.column is not None:
        # Report the stored number, which conversion to float32 may have made infinite.
        problem = f"holds {store.array(name)[row, first.column]} at column {first.column}"
    advice = f"mark items without {name!r} as absent in the store"
    raise NonFiniteError(f"{name!r}, {_describe_row(store, row)}, {problem}{first.more}; {advice}")


def _describe_row(store: EmbeddingStore, row: int) -> str:
    return f"row {row} of the store ({store.item_names[row]!r})"
