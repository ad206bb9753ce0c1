"""Compute a contrastive loss in one direction, with multiple positives, weighted negatives and extra negatives.

Let l_ij = scale <q_i, k_j>. The positives P_i of query i are key i, or all keys with the id of query i. The negatives
N_i are the keys with another id and the extra negatives. The loss is the mean over the queries of

    L_i = log( sum_{p in P_i} exp(l_ip) + sum_{j in N_i} w_ij exp(l_ij) ) - mean_{p in P_i} l_ip
    w_ij = |N_i| exp(beta c_ij) / sum_{k in N_i} exp(beta c_ik)

where c_ij are cosines and beta is the hardness (with beta = 0, all weights are 1). Label smoothing s adds
s (mean_p l_ip - mean_k l_ik), where p runs over P_i and k over both P_i and N_i. One pass over tiles of full rows
computes value and gradient, without a matrix of all pairs.

With several processes, each process computes its local queries against all keys. The forward pass sums the value and
the gradients over processes, so the backward pass needs no communication.

Shapes: `N` selected rows, `R` local rows, `I` rows of a tile, `E` shared negatives, `K` negatives of each query,
`C` = N + E + K columns, `D` dimension.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._directed_losses import ContrastSettings, Keys, row_losses, row_weights_
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import row_tiles

# Maximum number of entries of a tile; about four copies exist at a time.
_ENTRIES = 2**20


class Negatives(NamedTuple):
    """Negatives in addition to the keys of the batch.

    Attributes:
        shared_ED: unit rows for all queries, the same on every process.
        own_RKD: K unit rows for each local query.
        own_present_RK: mask of the rows in `own_RKD` that exist; None if all exist.
        ids_N: id of each query; shared negatives with the query's id are excluded.
        shared_ids_E: ids of the shared negatives; None if these ids differ from the ids of all queries.
        shared_known_E: True for shared negatives that have an id; None if all have an id.
        shared_gradient: False if no shared negative requires a gradient on any process.
    """

    shared_ED: Tensor
    own_RKD: Tensor
    own_present_RK: Tensor | None = None
    ids_N: Tensor | None = None
    shared_ids_E: Tensor | None = None
    shared_known_E: Tensor | None = None
    shared_gradient: bool = True


def directed_contrast(
    q_ND: Tensor,
    k_ND: Tensor,
    scale: Tensor,
    *,
    selection: RowSelection,
    settings: ContrastSettings,
    negatives: Negatives | None = None,
) -> Tensor:
    """Mean of L_i over the selected rows; 0 without rows. With several processes, each process gets the gradient of the
    scale over all queries.
    """
    if negatives is None:
        local = len(selection.local(q_ND))
        negatives = Negatives(q_ND.new_zeros(0, q_ND.shape[1]), q_ND.new_zeros(local, 0, q_ND.shape[1]))
    tensors = (q_ND, k_ND, scale, negatives.shared_ED, negatives.own_RKD)
    if current_backend() == "reference" and selection.shard is None:
        return _reference(tensors, selection, settings, negatives)
    # Processes exchange gradients in the forward pass, so this flag must be equal on all processes.
    with_gradient = torch.is_grad_enabled() and (
        selection.shard is not None or any(tensor.requires_grad for tensor in tensors)
    )
    value: Tensor = _DirectedContrast.apply(*tensors, selection, settings, negatives, with_gradient)  # type: ignore[no-untyped-call]
    return value


class _DirectedContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_ND: Tensor,
        k_ND: Tensor,
        scale: Tensor,
        shared_ED: Tensor,
        own_RKD: Tensor,
        selection: RowSelection,
        settings: ContrastSettings,
        negatives: Negatives,
        with_gradient: bool,
    ) -> Tensor:
        tensors = (q_ND, k_ND, scale, shared_ED, own_RKD)
        total, gradients = _sum_tiles(tensors, selection, settings, negatives, with_gradient=with_gradient)
        shard, factor = selection.shard, 1 / max(1, selection.size)
        if shard is not None:
            total = shard.sum(total)
            if gradients:
                gradients[1] = shard.sum(gradients[1])
                if negatives.shared_gradient:
                    gradients[3] = shard.sum(gradients[3])
                # Gathering multiplied the gradients of the other tensors by the number of processes; do the same here.
                gradients[4] = gradients[4] * shard.processes
        total = total * factor
        if gradients:
            local_by_q = selection.scatter(gradients[0], q_ND)
            by_scale = total[1].to(scale.dtype).reshape(scale.shape)
            rest = [gradient.mul_(factor) for gradient in (local_by_q, gradients[1], gradients[3], gradients[4])]
            ctx.save_for_backward(*tensors, rest[0], rest[1], by_scale, rest[2], rest[3])
        return total[0].to(q_ND.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read only once, since activation checkpointing allows a single access
        with torch.no_grad():
            gradients = [gradient * g for gradient in saved[5:]]
        return (*(first_order_only(gradient, g, *saved[:5]) for gradient in gradients), None, None, None, None)


def _sum_tiles(
    tensors: tuple[Tensor, ...],
    selection: RowSelection,
    settings: ContrastSettings,
    negatives: Negatives,
    *,
    with_gradient: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Sums of L_i and of dL_i / dscale over the local queries, and the gradients."""
    q_ND, k_ND, scale, shared_ED, own_RKD = tensors
    q_RD, rows, factor = selection.local(q_ND), len(k_ND), float(scale)
    total = torch.zeros(2, dtype=torch.float64, device=q_ND.device)
    by_q_RD, by_k_ND, by_shared_ED, by_own_RKD = (torch.zeros_like(x) for x in (q_RD, k_ND, shared_ED, own_RKD))
    for i, cosine_IC, own_I, keys in _tiles(tensors, selection, negatives):
        losses = row_losses(cosine_IC, own_I, keys, scale=factor, settings=settings)
        total[0] += losses.loss_I.sum()
        if not with_gradient:
            continue
        weight_IC, by_scale = row_weights_(cosine_IC, keys, losses, scale=factor, settings=settings)
        of_keys_IN, of_shared_IE, of_own_IK = torch.split(weight_IC, [rows, len(shared_ED), own_RKD.shape[1]], 1)
        by_q_RD[i] = of_keys_IN @ k_ND + of_shared_IE @ shared_ED + torch.einsum("ik,ikd->id", of_own_IK, own_RKD[i])
        if by_scale is None:
            by_scale = (by_q_RD[i] * q_RD[i]).sum(1).double().sum() / factor
        total[1] += by_scale
        by_k_ND.addmm_(of_keys_IN.mT, q_RD[i])
        if negatives.shared_gradient:
            by_shared_ED.addmm_(of_shared_IE.mT, q_RD[i])
        by_own_RKD[i] = of_own_IK[:, :, None] * q_RD[i, None]
    return total, [by_q_RD, by_k_ND, total[1], by_shared_ED, by_own_RKD] if with_gradient else []


def _reference(
    tensors: tuple[Tensor, ...], selection: RowSelection, settings: ContrastSettings, negatives: Negatives
) -> Tensor:
    total = tensors[0].sum() * 0.0
    for _, cosine_IC, own_I, keys in _tiles(tensors, selection, negatives):
        total = total + row_losses(cosine_IC, own_I, keys, scale=tensors[2], settings=settings).loss_I.sum()
    return (total / max(1, selection.size)).to(tensors[0].dtype)


def _tiles(
    tensors: tuple[Tensor, ...], selection: RowSelection, negatives: Negatives
) -> Iterator[tuple[slice, Tensor, Tensor, Keys]]:
    """Yield the local rows, cosines, float64 cosines of the positives, and keys of each tile."""
    q_ND, k_ND, _, shared_ED, own_RKD = tensors
    position_R = selection.local_R
    if position_R is None:
        position_R = torch.arange(len(q_ND), device=q_ND.device)
    q_RD, columns = selection.local(q_ND), len(k_ND) + len(shared_ED) + own_RKD.shape[1]
    for i in row_tiles(len(q_RD), columns, entries=_ENTRIES):
        q_ID, position_I = q_RD[i], position_R[i]
        own_I = (q_ID.double() * k_ND[position_I].double()).sum(1)
        cosine_IC = q_ID @ k_ND.mT
        if columns > len(k_ND):
            further = (q_ID @ shared_ED.mT, torch.einsum("id,ikd->ik", q_ID, own_RKD[i]))
            cosine_IC = torch.cat((cosine_IC, *further), 1)
        # In-place is safe, since the operations above do not save their results for the backward pass.
        cosine_IC.scatter_(1, position_I[:, None], own_I.to(q_ID.dtype)[:, None])
        yield i, cosine_IC, own_I, _keys(i, position_I, selection, negatives)


def _keys(i: slice, position_I: Tensor, selection: RowSelection, negatives: Negatives) -> Keys:
    row_I, codes_N = torch.arange(len(position_I), device=position_I.device), selection.codes_N
    row_P, column_P = row_I, position_I
    if codes_N is not None:
        # Codes are sorted, so keys with the id of a query are adjacent.
        code_I = codes_N[position_I]
        first_I, stop_I = (torch.searchsorted(codes_N, code_I, right=right) for right in (False, True))
        count_I = stop_I - first_I
        row_P = torch.repeat_interleave(row_I, count_I)
        before_I = count_I.cumsum(0) - count_I
        column_P = torch.arange(len(row_P), device=row_P.device) + torch.repeat_interleave(first_I - before_I, count_I)
    row_X = column_X = row_I[:0]
    ids_N, shared_ids_E = negatives.ids_N, negatives.shared_ids_E
    if ids_N is not None and shared_ids_E is not None:
        same_IE = ids_N[position_I, None] == shared_ids_E
        if negatives.shared_known_E is not None:
            same_IE &= negatives.shared_known_E
        row_X, shared_X = same_IE.nonzero(as_tuple=True)
        column_X = shared_X + selection.size
    present_RK = negatives.own_present_RK
    return Keys(position_I, row_P, column_P, row_X, column_X, None if present_RK is None else ~present_RK[i])
