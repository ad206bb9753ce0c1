"""Compute InfoNCE with logits from the volume (GRAM) or area (TRIANGLE) of anchor i and the other vectors of item j.

The logits of true tuples are computed from the tuples in float64, since these logits suffer from cancellation where
the modalities agree. The logits of all pairs are computed in tiles by matrix products.

Shapes: `M` modalities, `K` = M - 1 modalities other than the anchor, `B` items, `N` selected items, `D` dimension.
"""

from functools import partial

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._float64_gram import masked_gram, to_float64
from unialign.functional._orthonormal_rows import orthonormal_rows, volumes
from unialign.ops import AreaLogits, RowSelection, TriangleForm, VolumeLogits, mean_contrast, safe_sqrt


def volume_contrast(
    batch: Batch,
    selection: RowSelection,
    *,
    anchor: int,
    temperature: Tensor | float,
    label_smoothing: float,
    eps: float,
) -> Tensor:
    """Return symmetric InfoNCE of -Vol(anchor of i, other modalities of j) / tau over the selected items (GRAM).

    Each process computes the loss in full.
    """
    tensors, positive_N = volume_inputs(batch, selection, anchor=anchor, temperature=temperature, eps=eps)
    make = partial(VolumeLogits, eps=eps)
    return mean_contrast(make, tensors, positive_N, selection=selection, label_smoothing=label_smoothing)


def volume_inputs(
    batch: Batch, selection: RowSelection, *, anchor: int, temperature: Tensor | float, eps: float
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Vol(anchor i, tuple j) = Vol(tuple j) sin(anchor i, span of tuple j), which takes M - 1 matrix products instead
    of B^2 determinants.
    """
    others = [m for m in range(len(batch.names)) if m != anchor]
    rows = [selection.take(batch.rows(m)) for m in others]
    present_KN = torch.stack([selection.take(batch.present_MB[m]) for m in others])
    base_N, basis = orthonormal_rows(rows, present_KN)
    gram_NMM = selection.take(masked_gram(batch.z_MBD, batch.present_MB))
    dtype = batch.z_MBD.dtype
    scale = 1 / torch.as_tensor(temperature, dtype=dtype, device=batch.z_MBD.device)
    positive_N = -scale * safe_sqrt(volumes(gram_NMM) ** 2 + eps).to(dtype)
    return (base_N.to(dtype), scale, selection.take(batch.rows(anchor)), *basis), positive_N


def area_contrast(
    batch: Batch,
    selection: RowSelection,
    *,
    anchor: int,
    form: TriangleForm,
    temperature: Tensor | float,
    label_smoothing: float,
    eps: float,
) -> Tensor:
    """Return symmetric InfoNCE of -A / tau, with A the area of anchor i and the two other vectors of item j (TRIANGLE).

    Each process computes the loss in full.
    """
    tensors, positive_N = area_inputs(batch, selection, anchor=anchor, form=form, temperature=temperature, eps=eps)
    make = partial(AreaLogits, form=form, eps=eps)
    return mean_contrast(make, tensors, positive_N, selection=selection, label_smoothing=label_smoothing)


def area_inputs(
    batch: Batch, selection: RowSelection, *, anchor: int, form: TriangleForm, temperature: Tensor | float, eps: float
) -> tuple[tuple[Tensor, ...], Tensor]:
    """With S = |u|^2 |w|^2 - <u, w>^2, u = t - (v + a) / 2 and w = v - a, the form `area` is sqrt(max(S, 0) + eps) / 2,
    and the form `squared` is S / 2, twice the squared area, as in the released code.
    """
    z = [selection.take(batch.rows(m)) for m in range(len(batch.names))]
    t_ND, (v_ND, a_ND) = z[anchor], (z[m] for m in range(3) if m != anchor)
    scale = 1 / torch.as_tensor(temperature, dtype=t_ND.dtype, device=t_ND.device)
    t64_ND, v64_ND, a64_ND = (to_float64(z_ND) for z_ND in (t_ND, v_ND, a_ND))
    c64_ND, w64_ND = (v64_ND + a64_ND) / 2, v64_ND - a64_ND
    u_ND = t64_ND - c64_ND
    uw_N, ww_N = (u_ND * w64_ND).sum(-1), (w64_ND * w64_ND).sum(-1)
    square_N = (u_ND * u_ND).sum(-1) * ww_N - uw_N * uw_N
    area_N = square_N / 2 if form == "squared" else safe_sqrt(square_N.clamp(min=0) + eps) / 2
    cc_N, cw_N = 1 + (c64_ND * c64_ND).sum(-1), (c64_ND * w64_ND).sum(-1)
    c_ND, w_ND, cc_N, cw_N, ww_N, area_N = (x.to(t_ND.dtype) for x in (c64_ND, w64_ND, cc_N, cw_N, ww_N, area_N))
    return (scale, t_ND, c_ND, w_ND, cc_N, cw_N, ww_N), -scale * area_N
