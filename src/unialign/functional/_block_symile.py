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
    positive_MN, masked_K = positive_N.expand(modalities, items), _positive_tuples(rows_MKN)
    return key_contrasts(number, z_MND, key_MND, positive_MN, masked_K=masked_K, parameters=parameters)


def _product(rows: Sequence[Tensor]) -> Tensor:
    return reduce(torch.mul, rows)


def _other_modalities(modalities: int) -> list[list[int]]:
    return [[m for m in range(modalities) if m != r] for r in range(modalities)]


def _positive_tuples(rows_MKN: Tensor) -> Tensor:
    """Positions in an (M, N, N) tensor of queries and keys whose rows all belong to the query's item."""
    items = rows_MKN.shape[-1]
    r, key = (rows_MKN[:, 1:] == rows_MKN[:, :1]).all(1).nonzero(as_tuple=True)
    return (r * items + rows_MKN[r, 0, key]) * items + key


class _TupleKeys(torch.autograd.Function):
    """(M, N, D) products of the permuted rows of all modalities except the first index.

    The gradient gathers rows by the inverse permutations, which is faster than scattering them. A single function for
    all keys costs less than automatic differentiation of each permutation and product.
    """

    @staticmethod
    def forward(ctx: Any, z_MND: Tensor, rows_MKN: Tensor) -> Tensor:
        picked = [
            [z_MND[m].index_select(0, rows_N) for m, rows_N in zip(others, rows_KN, strict=True)]
            for others, rows_KN in zip(_other_modalities(len(z_MND)), rows_MKN, strict=True)
        ]
        ctx.save_for_backward(z_MND, rows_MKN, *(z_ND for row in picked for z_ND in row))
        return torch.stack([_product(row) for row in picked])

    @staticmethod
    def backward(ctx: Any, g_MND: Tensor) -> tuple[Tensor, None]:
        z_MND, rows_MKN, *picked = ctx.saved_tensors
        with torch.no_grad():
            others = rows_MKN.shape[1]
            order_N = torch.arange(rows_MKN.shape[-1], device=z_MND.device)
            inverse_MKN = torch.empty_like(rows_MKN).scatter_(-1, rows_MKN, order_N.expand_as(rows_MKN))
            gradient_MND, begun = torch.empty_like(z_MND), set[int]()
            for r, modalities in enumerate(_other_modalities(len(z_MND))):
                row = picked[r * others : (r + 1) * others]
                for k, m in enumerate(modalities):
                    by_ND = _product([g_MND[r], *row[:k], *row[k + 1 :]])
                    if m in begun:
                        gradient_MND[m] += by_ND.index_select(0, inverse_MKN[r, k])
                    else:
                        torch.index_select(by_ND, 0, inverse_MKN[r, k], out=gradient_MND[m])
                        begun.add(m)
        return first_order_only(gradient_MND, g_MND, z_MND), None
