"""Negatives in addition to the rows of a batch.

Shapes: `B` items, `n` items of this process, `N` selected items, `R` selected items of this process, `E` shared
negatives, `K` negatives of each item, `D` dimension.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unialign._checks import suggestion
from unialign._invalid_rows import first_bad_row, has_direction
from unialign._unit_rows import largest_entries, normalize_rows
from unialign.batch import Batch, check_dense
from unialign.distributed import Shard, gather_integers, gather_with_own_gradient
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.ops import Negatives, RowSelection

if TYPE_CHECKING:
    from unialign.losses._memory_queue import MemoryQueue


@dataclass(frozen=True, eq=False)
class ModalityNegatives:
    """Additional negatives of one modality: `own` of each local item, `shared` by all items, and from a `queue`."""

    own_nKD: Tensor | None = None
    own_present_nK: Tensor | None = None
    shared_ED: Tensor | None = None
    queue_ED: Tensor | None = None
    queue_ids_E: Tensor | None = None

    def of(self, selection: RowSelection, like_ND: Tensor, ids_N: Tensor | None) -> Negatives:
        empty_ED = like_ND.new_zeros(0, like_ND.shape[1])
        shared_ED, queue_ED = (
            empty_ED if rows_ED is None else rows_ED.to(like_ND) for rows_ED in (self.shared_ED, self.queue_ED)
        )
        ids_E = known_E = None
        if self.queue_ids_E is not None:
            known_E = torch.arange(len(shared_ED) + len(queue_ED), device=like_ND.device) >= len(shared_ED)
            ids_E = torch.cat([self.queue_ids_E.new_zeros(len(shared_ED)), self.queue_ids_E]).to(like_ND.device)
        position_R = _local_positions(selection, like_ND.device)
        own_nKD, present_nK = self.own_nKD, self.own_present_nK
        return Negatives(
            shared_ED=torch.cat([shared_ED, queue_ED]),
            own_RKD=like_ND.new_zeros(len(position_R), 0, like_ND.shape[1])
            if own_nKD is None
            else own_nKD.to(like_ND)[position_R],
            own_present_RK=None if present_nK is None else present_nK[position_R],
            ids_N=ids_N,
            shared_ids_E=ids_E,
            shared_known_E=known_E,
            shared_gradient=self.shared_ED is not None,
        )


def check_negatives(negatives: Any, batch: Batch | None, *, zero_rows: str) -> dict[str, ModalityNegatives]:
    if not isinstance(negatives, Mapping):
        raise ShapeError(
            f"negatives must be a mapping of modality name to tensor, got {type(negatives).__name__}; pass a "
            "queue as queue="
        )
    return {name: _check_rows(name, rows, batch, zero_rows=zero_rows) for name, rows in negatives.items()}


def queued_rows(
    queue: "MemoryQueue", batch: Batch | None, negatives: Mapping[str, ModalityNegatives]
) -> dict[str, ModalityNegatives]:
    if not hasattr(queue, "stored"):
        raise ConfigError(f"queue must be a unialign.losses.MemoryQueue, got {type(queue).__name__}")
    result = dict(negatives)
    for name in queue.modalities:
        rows_ED, ids_E = queue.stored(name)
        if batch is not None and len(rows_ED) > 0 and batch.z_MBD.shape[1] > 0:
            if rows_ED.shape[1] != batch.z_MBD.shape[2]:
                raise ShapeError(
                    f"the queue has rows of dim {rows_ED.shape[1]} for {name!r}, but the batch has dim "
                    f"{batch.z_MBD.shape[2]}; use a separate queue for each space"
                )
            if (ids_E is None) != (batch.ids_B is None):
                filled, call = ("without", "with") if ids_E is None else ("with", "without")
                raise ConfigError(
                    f"the queue was filled {filled} ids, but this call is {call} ids=; give ids in both or in neither"
                )
        found = result.get(name, ModalityNegatives())
        result[name] = replace(found, queue_ED=rows_ED, queue_ids_E=ids_E)
    return result


def check_names(negatives: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Rows of a queue may be of other modalities."""
    for name, rows in negatives.items():
        if name not in names and (rows.own_nKD is not None or rows.shared_ED is not None):
            known = ", ".join(map(repr, names))
            raise ConfigError(
                f"`negatives` has {name!r}, which is not a modality; expected some of {known}{suggestion(name, names)}"
            )


def gather_negatives(
    negatives: Mapping[str, ModalityNegatives], like_BD: Tensor, shard: Shard
) -> dict[str, ModalityNegatives]:
    """Every process must have negatives of the same modalities."""
    result = dict(negatives)
    for name in sorted(name for name, rows in negatives.items() if rows.shared_ED is not None):
        shared_ED = negatives[name].shared_ED
        assert shared_ED is not None
        shapes = gather_integers(shared_ED.shape, shard.group)
        for rank, (_, dim) in enumerate(shapes):
            if dim != like_BD.shape[-1]:
                raise ShapeError(
                    f"process {rank} of {len(shapes)} has negatives of {name!r} with dim {dim}, but the space has dim "
                    f"{like_BD.shape[-1]}"
                )
        rows = Shard(tuple(count for count, _ in shapes), shard.rank, shard.group)
        joined_1ED = gather_with_own_gradient(shared_ED.to(like_BD)[None], rows)
        result[name] = replace(negatives[name], shared_ED=joined_1ED[0])
    return result


def _local_positions(selection: RowSelection, device: torch.device) -> Tensor:
    position_N = torch.arange(selection.size, device=device) if selection.index_N is None else selection.index_N
    position_R = selection.local(position_N)
    return position_R if selection.shard is None else position_R - selection.shard.start


def _check_rows(name: Any, rows: Any, batch: Batch | None, *, zero_rows: str) -> ModalityNegatives:
    what = f"negatives[{name!r}]"
    expected = "(B, K, D) with K rows of each item, or (K, D) shared by all items"
    if not isinstance(rows, Tensor):
        raise ShapeError(f"{what} must be a torch tensor of shape {expected}, got {type(rows).__name__}")
    check_dense(rows, what, f"a tensor of shape {expected}")
    if rows.ndim not in (2, 3) or not rows.is_floating_point() or rows.shape[-1] == 0:
        raise ShapeError(
            f"{what} has shape {tuple(rows.shape)} and dtype {rows.dtype}; expected a floating-point tensor of shape "
            f"{expected}"
        )
    items, dim = (0, rows.shape[-1]) if batch is None else batch.z_MBD.shape[1:]
    if (rows.ndim == 3 and len(rows) != items) or rows.shape[-1] != dim:
        raise ShapeError(
            f"{what} has shape {tuple(rows.shape)}, but the batch has {items} items of dim {dim}; expected {expected}"
        )
    per_item = rows.shape[1] if rows.ndim == 3 else 1
    used_L = None
    if batch is not None and rows.ndim == 3 and name in batch.names and not batch.complete:
        used_L = batch.present_MB[batch.index(name)].repeat_interleave(per_item)
    unit_LD, present_L = _unit(rows.reshape(-1, dim), what, batch, used_L, per_item=per_item, zero_rows=zero_rows)
    if rows.ndim == 2:
        return ModalityNegatives(shared_ED=unit_LD[present_L] if zero_rows == "ignore" else unit_LD)
    present_nK = present_L.reshape(rows.shape[:2]) if zero_rows == "ignore" else None
    return ModalityNegatives(own_nKD=unit_LD.reshape(rows.shape), own_present_nK=present_nK)


def _unit(
    rows_LD: Tensor, what: str, batch: Batch | None, used_L: Tensor | None, *, per_item: int, zero_rows: str
) -> tuple[Tensor, Tensor]:
    """Return unit rows, 0 if unused or of norm zero, and the mask of the others."""
    dtype = torch.promote_types(rows_LD.dtype, torch.float32) if batch is None else batch.z_MBD.dtype
    if batch is not None:
        rows_LD = rows_LD.to(batch.z_MBD.device)
    largest_1L = largest_entries([rows_LD], dtype)
    present_1L = has_direction(largest_1L)
    bad_L = ~present_1L[0]
    if zero_rows == "ignore":
        bad_L &= ~(largest_1L[0] < torch.inf)
    if used_L is not None:
        present_1L &= used_L
        bad_L &= used_L
    bad = first_bad_row(rows_LD.to(dtype), bad_L)
    if bad is not None:
        item, row = divmod(bad.row, per_item)
        position = f"row {bad.row}" if per_item == 1 else f"row {row} of item {item}"
        raise NonFiniteError(
            f"{what} {position} {bad.what}{bad.more}; remove this row"
            + ("" if bad.column is not None else ", or pass zero_rows='ignore' to exclude such rows")
        )
    masked_1L = present_1L if zero_rows == "ignore" or used_L is not None else None
    return normalize_rows([rows_LD], largest_1L, masked_1L)[0], present_1L[0]
