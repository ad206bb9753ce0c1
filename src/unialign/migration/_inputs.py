"""Open the old index and the new rows of the sampled items, and match the rows of both sources.

Shapes: `N` rows of the index, `n` pairs, `D` dimension of the old rows, `E` dimension of the new rows.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign._invalid_rows import first_bad_row, usable_rows
from unialign.data import EmbeddingStore, encoder_fingerprint, item_ids, list_datasets, load_dataset, open_collection
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.migration._identity import joined_rows
from unialign.readers import ArrayEntry, Rows

Array = NDArray[Any]

# A leave-one-out interval from fewer pairs is too wide to be useful.
LEAST_PAIRS = 16
# If there are more pairs, a random sample of this size is used to bound memory. More pairs hardly change a map.
FIT_PAIRS = 20_000


@dataclass(frozen=True)
class RowSource:
    """Rows of one embedding model; `encoder` is None if the source does not record a fingerprint."""

    name: str
    rows: Rows
    load: Callable[[], Array]
    ids: NDArray[np.str_] | None = None
    encoder: str | None = None
    labels: NDArray[np.int64] | None = None
    store: EmbeddingStore | None = None

    def __len__(self) -> int:
        return self.rows.shape[0]

    @property
    def dim(self) -> int:
        return self.rows.shape[1]

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield unit rows in float64, with bounded memory."""
        if hasattr(self.rows, "order_N"):
            yield from self._taken_blocks()
            return
        start = 0
        for chunk in self.rows.chunks():
            yield slice(start, start + len(chunk)), checked_unit(chunk, self.name, start)
            start += len(chunk)

    def take(self, rows_n: NDArray[np.int64]) -> Array:
        ascending_n, back_n = np.unique(rows_n, return_inverse=True)
        found = self.rows.take(ascending_n.tolist())
        return checked_unit(found, self.name, ascending_n)[back_n.reshape(-1)]

    def _taken_blocks(self) -> Iterator[tuple[slice, Array]]:
        # Rows that were joined by ids are not stored in the order of the items, so they are read by row number.
        step = max(1, (1 << 20) // self.dim)
        for start in range(0, len(self), step):
            rows_b = np.arange(start, min(len(self), start + step))
            yield slice(start, start + len(rows_b)), self.take(rows_b)


def open_rows(source: Any, name: str, *, modality: str | None = None) -> RowSource:
    if isinstance(source, RowSource):
        return source
    if hasattr(source, "shape") and not isinstance(source, EmbeddingStore):
        entry = ArrayEntry.from_array(name, source)
        if len(entry.shape) != 2 or not entry.is_floating or 0 in entry.shape:
            raise ShapeError(
                f"{name!r} must be a floating-point matrix of shape (rows, dim), got {entry.dtype} {entry.shape}"
            )
        return RowSource(name, entry.rows(), entry.load)
    chosen = None if modality is None else [modality]
    found = open_collection(source, modalities=chosen)
    if len(found.modalities) != 1:
        raise ConfigError(
            f"{name!r} has the matrices {', '.join(found.modalities)}; name one of them with {name}_modality"
        )
    ((column, entry_of),) = found.modalities.items()
    if not entry_of.present_N.all():
        absent = int(np.flatnonzero(~entry_of.present_N)[0])
        raise DataError(f"{name!r} has no row for item {absent}; leave out items without a row")
    store = _store(source)
    if store is None:
        ids = None if "ids" not in found.values else np.asarray(found.values["ids"]).astype(np.str_)
    else:
        # Files of a store hold codes of the ids; their values can be compared with those of another source.
        values = item_ids(store)
        ids = None if values is None else np.asarray(values).astype(np.str_)
    return RowSource(name, entry_of.rows, entry_of.load, ids, _encoder(store, column), found.labels_N, store)


def _store(source: Any) -> EmbeddingStore | None:
    if isinstance(source, EmbeddingStore):
        return source
    if isinstance(source, str) and source in list_datasets():
        return load_dataset(source)
    if isinstance(source, str | os.PathLike) and (Path(source) / "store.json").is_file():
        return EmbeddingStore.open(source)
    return None


def _encoder(store: EmbeddingStore | None, column: str) -> str | None:
    if store is None or column not in store.provenance.get("columns", {}):
        return None
    return encoder_fingerprint(store, column)


def as_array(values: Any) -> Array:
    """Convert rows to an array; a tensor may be on any device and require gradients."""
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def checked_unit(rows_nD: Array, name: str, start: "int | NDArray[np.int64]" = 0) -> Array:
    """Return unit rows; `start` is the row number of the first row, or holds the row numbers of all rows."""
    raw = torch.from_numpy(np.ascontiguousarray(rows_nD, dtype=np.float64))
    bad = first_bad_row(raw, ~usable_rows(raw))
    if bad is not None:
        row = int(start[bad.row]) if isinstance(start, np.ndarray) else start + bad.row
        raise NonFiniteError(
            f"{name!r} row {row} {bad.what}{bad.more}; its cosine is undefined, so remove the row or embed it again"
        )
    scaled_nD = raw / raw.abs().amax(1, keepdim=True)
    return np.asarray((scaled_nD / torch.linalg.vector_norm(scaled_nD, dim=1, keepdim=True)).numpy())


def pair_rows(pairs: Any, old: RowSource, new: RowSource) -> NDArray[np.int64]:
    """Return the rows of the pairs. `pairs` are row numbers (integers), ids (strings), or a mask (N,). None: join by
    ids or, without ids, by row.

    Two stores are joined as in `joined_rows`, and each row of `new` must be an item of `old`.
    """
    if pairs is None and old.store is not None and new.store is not None:
        pairs = _rows_of_store(old.store, new.store)
    if pairs is None and new.ids is None:
        if len(old) != len(new):
            raise DataError(
                f"'new' has {len(new):,} rows and the index {len(old):,}; pass the row numbers or ids of the new rows "
                "as `pairs`"
            )
        pairs = np.arange(len(new))
    values = as_array(new.ids if pairs is None else pairs)
    if values.dtype == np.bool_:
        values = _rows_of_mask(values, old, new)
    if values.shape != (len(new),):
        raise ShapeError(f"`pairs` must have one entry for each of the {len(new):,} new rows, got shape {values.shape}")
    rows_n = values.astype(np.int64) if values.dtype.kind in "iu" else _rows_of_ids(values, old)
    if len(rows_n) < LEAST_PAIRS:
        raise DataError(f"got {len(rows_n)} pairs, expected at least {LEAST_PAIRS}; 240 or more give useful intervals")
    outside = rows_n[(rows_n < 0) | (rows_n >= len(old))]
    if len(outside):
        raise DataError(f"pair row {int(outside[0])} is outside the index, which has rows 0 to {len(old) - 1}")
    found, count = np.unique(rows_n, return_counts=True)
    if (count > 1).any():
        repeated = int(found[count > 1][0])
        raise DataError(
            f"row {repeated} of the index is paired {int(count.max())} times; pass each row once, because copies make "
            "left-out errors too small"
        )
    return rows_n


def _rows_of_store(old: EmbeddingStore, new: EmbeddingStore) -> NDArray[np.int64] | None:
    found = joined_rows(old, new, np.ones(old.items, np.bool_), np.ones(new.items, np.bool_))
    if found is None:
        return None
    rows_n = np.full(new.items, -1, np.int64)
    rows_n[found[1]] = found[0]
    if (rows_n < 0).any():
        row = int((rows_n < 0).argmax())
        raise DataError(
            f"the old index has no item with the id of row {row} of 'new' ({int((rows_n < 0).sum()):,} missing); leave "
            "out these rows"
        )
    return rows_n


def _rows_of_mask(mask_N: Array, old: RowSource, new: RowSource) -> NDArray[np.int64]:
    if mask_N.shape != (len(old),):
        raise ShapeError(
            f"`pairs` is a bool mask of shape {mask_N.shape}; expected one entry for each of the {len(old):,} rows of "
            "the index"
        )
    rows_n = np.flatnonzero(mask_N)
    if len(rows_n) != len(new):
        raise ShapeError(f"`pairs` marks {len(rows_n):,} rows of the index, but there are {len(new):,} new rows")
    return rows_n


def _rows_of_ids(values_n: Array, old: RowSource) -> NDArray[np.int64]:
    if old.ids is None:
        raise DataError("`pairs` holds ids, but the old index has no ids; pass row numbers, or an index with ids")
    wanted_n = values_n.astype(np.str_)
    order_N = np.argsort(old.ids, kind="stable")
    sorted_N = old.ids[order_N]
    if (sorted_N[1:] == sorted_N[:-1]).any():
        raise DataError("the ids of the old index repeat, so they do not identify rows; pass row numbers as `pairs`")
    place_n = np.minimum(np.searchsorted(sorted_N, wanted_n), len(sorted_N) - 1)
    missing_n = wanted_n[sorted_N[place_n] != wanted_n]
    if len(missing_n):
        raise DataError(f"the old index has no item with id {str(missing_n[0])!r} ({len(missing_n):,} missing)")
    return np.asarray(order_N[place_n], np.int64)


def content_fingerprint(rows_nD: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows_nD, dtype="<f4").tobytes()).hexdigest()


def check_dims(named: Sequence[tuple[str, Any, int]]) -> None:
    for name, rows, dim in named:
        if not hasattr(rows, "shape"):
            raise ShapeError(f"{name!r} must be an array or tensor of shape (rows, {dim}), got {type(rows).__name__}")
        if np.ndim(rows) != 2 or rows.shape[1] != dim:
            raise ShapeError(f"{name!r} must have shape (rows, {dim}), got {tuple(np.shape(rows))}")
