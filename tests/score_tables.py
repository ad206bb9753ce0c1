"""Compute whole score tables, which the library computes tile by tile."""

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._tuple_contrast import area_inputs, volume_inputs
from unialign.ops._row_selection import RowSelection, select_rows
from unialign.ops._tuple_logits import AreaLogits, TriangleForm, VolumeLogits

__all__ = ["cross_areas", "cross_volumes"]


def cross_volumes(batch: Batch, *, anchor: int, eps: float) -> Tensor:
    tensors, own_B = volume_inputs(batch, _all_rows(batch), anchor=anchor, temperature=1.0, eps=eps)
    return -_with_own(VolumeLogits(*tensors, eps=eps).dense(), own_B)


def cross_areas(batch: Batch, *, anchor: int, form: TriangleForm = "area", eps: float) -> Tensor:
    tensors, own_B = area_inputs(batch, _all_rows(batch), anchor=anchor, form=form, temperature=1.0, eps=eps)
    return -_with_own(AreaLogits(*tensors, form=form, eps=eps).dense(), own_B)


def _all_rows(batch: Batch) -> RowSelection:
    return select_rows(torch.ones(batch.z_MBD.shape[1], dtype=torch.bool), None)


def _with_own(table_BB: Tensor, own_B: Tensor) -> Tensor:
    own_BB = torch.eye(len(own_B), dtype=torch.bool)
    return torch.where(own_BB, own_B[:, None], table_BB)
