"""Shorten the rows of a batch to their first dimensions, and normalize them again.

Shapes: `M` modalities, `B` items, `D` dimension, `d` length of the prefix, `K` negatives of each item, `E` shared
negatives.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unialign._invalid_rows import has_direction
from unialign._stacked_rows import normalize_stacked
from unialign._unit_rows import largest_entries, normalize_rows
from unialign.batch import Batch
from unialign.errors import NonFiniteError, ShapeError
from unialign.losses._call_inputs import BatchWithInputs, inputs_of
from unialign.losses._negatives import ModalityNegatives


def batch_prefix(batch: Batch, dim: int) -> Batch:
    """Normalize the first `dim` dimensions of all rows and negatives. A negative whose prefix has norm zero is
    excluded.
    """
    full = batch.z_MBD.shape[2]
    if dim == full:
        return batch
    if dim > full:
        raise ShapeError(
            f"the embeddings have {full} dimensions, but dims contains {dim}; use prefixes of at most {full} dimensions"
        )
    inputs = inputs_of(batch)
    z_MBd, present_MB = _prefix_rows(batch, dim, ignore_zeros=inputs.zero_rows == "ignore")
    if not isinstance(batch, BatchWithInputs):
        return replace(batch, z_MBD=z_MBd, present_MB=present_MB)
    negatives = {name: _prefix_negatives(rows, dim) for name, rows in inputs.negatives.items()}
    return replace(batch, z_MBD=z_MBd, present_MB=present_MB, inputs=replace(inputs, negatives=negatives))


def _prefix_rows(batch: Batch, dim: int, *, ignore_zeros: bool) -> tuple[Tensor, Tensor]:
    # Slice all modalities in one operation, so that the backward pass also needs one operation.
    raw = batch.z_MBD[..., :dim].unbind(0)
    if batch.complete:
        z_MBd = normalize_stacked(raw, batch.z_MBD.dtype)
        if z_MBd is not None:
            return z_MBd, batch.present_MB
    largest_MB = largest_entries(raw, batch.z_MBD.dtype)
    usable_MB = has_direction(largest_MB)
    present_MB = batch.present_MB & usable_MB if ignore_zeros else batch.present_MB
    bad_MB = present_MB & ~usable_MB
    if bool(bad_MB.any()):
        m, i = bad_MB.nonzero()[0].tolist()
        more = f" ({int(bad_MB.sum()) - 1} more such rows)" if int(bad_MB.sum()) > 1 else ""
        raise NonFiniteError(
            f"{batch.names[m]!r} row {i} is 0 in its first {dim} dimensions{more}, so this prefix has no direction; "
            "use a larger prefix, or pass zero_rows='ignore' to treat such rows as absent"
        )
    return normalize_rows(raw, largest_MB, present_MB), present_MB


def _prefix_negatives(rows: ModalityNegatives, dim: int) -> ModalityNegatives:
    own_nKd, own_present_nK, shared_Ed = rows.own_nKD, rows.own_present_nK, rows.shared_ED
    if own_nKd is not None:
        flat_Ld, used_L = _unit_prefix(own_nKd.reshape(-1, own_nKd.shape[-1]), dim)
        used_nK = used_L.reshape(own_nKd.shape[:2])
        own_nKd = flat_Ld.reshape(*own_nKd.shape[:2], dim)
        own_present_nK = used_nK if own_present_nK is None else own_present_nK & used_nK
    if shared_Ed is not None:
        shared_Ed, used_E = _unit_prefix(shared_Ed, dim)
        shared_Ed = shared_Ed[used_E]
    queue_Ed, queue_ids_E = rows.queue_ED, rows.queue_ids_E
    if queue_Ed is not None:
        queue_Ed, used_E = _unit_prefix(queue_Ed, dim)
        queue_Ed = queue_Ed[used_E]
        queue_ids_E = None if queue_ids_E is None else queue_ids_E[used_E.to(queue_ids_E.device)]
    return ModalityNegatives(own_nKd, own_present_nK, shared_Ed, queue_Ed, queue_ids_E)


def _unit_prefix(rows_LD: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    raw: Sequence[Tensor] = [rows_LD[:, :dim]]
    dtype = torch.promote_types(rows_LD.dtype, torch.float32)
    largest_1L = largest_entries(raw, dtype)
    used_1L = has_direction(largest_1L)
    return normalize_rows(raw, largest_1L, used_1L)[0], used_1L[0]
