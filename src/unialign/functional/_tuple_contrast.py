"""Compute InfoNCE with logits from the volume (GRAM) or area (TRIANGLE) of anchor i and the other vectors of item j.

Logits of true tuples suffer from cancellation where their modalities agree, and are therefore computed from the tuples
in float64; logits of all pairs are computed by matrix products, tile by tile.

Shapes: `M` modalities, `K` = M - 1 others, `B` items, `N` selected ones, `D` dimension.
"""

from functools import partial

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._float64_gram import masked_gram, to_float64
from unialign.functional._volume import determinant_and_adjugate
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
    """Return the tensors of `VolumeLogits`, and the logits of the true tuples.

    Vol^2 = det(H_j) - g_ij^T adj(H_j) g_ij, H_j the Gram matrix of tuple j without the anchor and g_ij the cosines of
    anchor i with its vectors: M - 1 products instead of B^2 determinants. Absent modalities are zero rows with an extra
    axis in H_j, and contribute nothing.
    """
    others = [m for m in range(len(batch.names)) if m != anchor]
    z = [selection.take(batch.rows(m)) for m in range(len(batch.names))]
    gram_NMM = selection.take(masked_gram(batch.z_MBD, batch.present_MB))
    det_N, adj_NKK = determinant_and_adjugate(gram_NMM[:, others][:, :, others])
    anchor_NK = gram_NMM[:, anchor, others]
    square_N = gram_NMM[:, anchor, anchor] * det_N - torch.einsum("bk,bkn,bn->b", anchor_NK, adj_NKK, anchor_NK)
    dtype = batch.z_MBD.dtype
    scale = 1 / torch.as_tensor(temperature, dtype=dtype, device=batch.z_MBD.device)
    positive_N = -scale * safe_sqrt(square_N.to(dtype).clamp(min=0) + eps)
    return (det_N.to(dtype), adj_NKK.permute(1, 2, 0).to(dtype), scale, z[anchor], *(z[m] for m in others)), positive_N


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
    """Return symmetric InfoNCE of -A / tau, A the area of anchor i with the two other vectors of item j (TRIANGLE).

    Each process computes the loss in full.
    """
    tensors, positive_N = area_inputs(batch, selection, anchor=anchor, form=form, temperature=temperature, eps=eps)
    make = partial(AreaLogits, form=form, eps=eps)
    return mean_contrast(make, tensors, positive_N, selection=selection, label_smoothing=label_smoothing)


def area_inputs(
    batch: Batch, selection: RowSelection, *, anchor: int, form: TriangleForm, temperature: Tensor | float, eps: float
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the tensors of `AreaLogits`, and the logits of the true tuples.

    `area`: sqrt(max(S, 0) + eps) / 2 with S = |u|^2 |w|^2 - <u, w>^2, u = t - v, w = v - a · `squared`: S / 2,
    twice the squared area, as in the released code.
    """
    z = [selection.take(batch.rows(m)) for m in range(len(batch.names))]
    t_ND, (v_ND, a_ND) = z[anchor], (z[m] for m in range(3) if m != anchor)
    scale = 1 / torch.as_tensor(temperature, dtype=t_ND.dtype, device=t_ND.device)
    t64_ND, v64_ND, a64_ND = (to_float64(z_ND) for z_ND in (t_ND, v_ND, a_ND))
    u_ND, w_ND = t64_ND - v64_ND, v64_ND - a64_ND
    uw_N = (u_ND * w_ND).sum(-1)
    square_N = ((u_ND * u_ND).sum(-1) * (w_ND * w_ND).sum(-1) - uw_N * uw_N).to(t_ND.dtype)
    area_N = square_N / 2 if form == "squared" else safe_sqrt(square_N.clamp(min=0) + eps) / 2
    w_ND = v_ND - a_ND
    return (scale, t_ND, v_ND, w_ND, (v_ND * w_ND).sum(-1), (w_ND * w_ND).sum(-1)), -scale * area_N
