"""Compute `symile_sampled` of small batches from full matrices of products, for all query modalities at once.

Shapes: `M` modalities, `K` = M - 1 other modalities, `N` items, `D` dimension; `r` the query modality, `m` another one.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.functional._block_losses import as_scale, have_distinct_ids
from unialign.ops import ContrastBlocks, fits_blocks, key_contrasts


def block_symile(
    z_MND: Tensor, *, rows_MMN: Tensor, temperature: Tensor | float, ids_N: Tensor | None
) -> tuple[Tensor, ...] | None:
    """None if the batch or the options are not supported; ids must be distinct. `rows_MMN[r, m]` are permutations."""
    if not fits_blocks(z_MND, sharded=False) or not have_distinct_ids(ids_N):
        return None
    number, parameters = as_scale(temperature)
    if not ContrastBlocks.supports(number):
        return None
    modalities, items, _ = z_MND.shape
    others = [r * modalities + m for r, others in enumerate(_other_modalities(modalities)) for m in others]
    rows_MKN = rows_MMN.flatten(0, 1)[others].view(modalities, modalities - 1, items)
    key_MND = _TupleKeys.apply(z_MND, rows_MKN)  # type: ignore[no-untyped-call]
    positive_N = _product(z_MND.unbind(0)).sum(-1) * (parameters[0] if parameters else number)
    positive_MN, masked = positive_N.expand(modalities, items), _positive_tuples(rows_MKN)
    return key_contrasts(number, z_MND, key_MND, positive_MN, masked=masked, parameters=parameters)


def _product(rows: Sequence[Tensor]) -> Tensor:
    return reduce(torch.mul, rows)


def _other_modalities(modalities: int) -> list[list[int]]:
    return [[m for m in range(modalities) if m != r] for r in range(modalities)]


def _positive_tuples(rows_MKN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Modality, query and key of each key whose rows all belong to the query's item."""
    r, key = (rows_MKN[:, 1:] == rows_MKN[:, :1]).all(1).nonzero(as_tuple=True)
    return r, rows_MKN[r, 0, key], key


class _TupleKeys(torch.autograd.Function):
    """(M, N, D) products of the permuted rows of all modalities except the first index.

    The gradient gathers rows by the inverse permutations, which is faster than scattering them.
    """

    @staticmethod
    def forward(ctx: Any, z_MND: Tensor, rows_MKN: Tensor) -> Tensor:
        modalities, items, dim = z_MND.shape
        modality_MK = torch.tensor(_other_modalities(modalities), device=z_MND.device)
        place_MKN = rows_MKN + items * modality_MK[..., None]
        picked_MKND = z_MND.reshape(-1, dim).index_select(0, place_MKN.flatten()).view(*rows_MKN.shape, dim)
        ctx.save_for_backward(z_MND, rows_MKN, picked_MKND)
        return _product(picked_MKND.unbind(1))

    @staticmethod
    def backward(ctx: Any, g_MND: Tensor) -> tuple[Tensor, None]:
        z_MND, rows_MKN, picked_MKND = ctx.saved_tensors
        with torch.no_grad():
            modalities, items, dim = z_MND.shape
            others = range(modalities - 1)
            by_picked_MKND = torch.stack(
                [_product([g_MND, *(picked_MKND[:, j] for j in others if j != k)]) for k in others], 1
            )
            # The row of m for query modality r is entry m of the K others if m < r, else entry m - 1.
            places = [
                [r * len(others) + (m if m < r else m - 1) for r in queries]
                for m, queries in enumerate(_other_modalities(modalities))
            ]
            place_MK = torch.tensor(places, device=z_MND.device)
            inverse_MKN = rows_MKN.argsort(-1).flatten(0, 1)[place_MK] + items * place_MK[..., None]
            by_z_MKND = by_picked_MKND.view(-1, dim).index_select(0, inverse_MKN.flatten()).view(*rows_MKN.shape, dim)
            gradient_MND = by_z_MKND.sum(1)
        return first_order_only(gradient_MND, g_MND, z_MND), None
