"""Compute the loss of Symile, a cross-entropy of multilinear inner products (Saporta et al. 2024).

MIP(z^1, ..., z^M) = sum_d prod_m z^m_d generalizes the inner product to M vectors. For each query modality r, the true
tuple of item i is contrasted with tuples of the other modalities: either N sampled tuples (the paper's O(N) negatives)
or all N^(M - 1) tuples.

Shapes: `M` modalities, `N` complete items, `D` dimension; `r` the query modality, `m` another modality.
"""

from functools import partial, reduce

import torch
from torch import Tensor

from unialign.functional._value_order import value_order
from unialign.ops import RowSelection, TupleCosineLogits, mean_contrast


def symile_sampled(
    z_MND: Tensor, *, rows_MMN: Tensor, temperature: Tensor | float, ids_N: Tensor | None
) -> list[Tensor]:
    """Return, for each modality r, the mean cross-entropy of the true tuple among N keys.

    Key j is the product over the other modalities m of the vectors of the items `rows_MMN[r, m, j]`. The true tuples
    are on the diagonal. Off-diagonal keys whose vectors all have the query's id are masked.
    """
    modalities, items, _ = z_MND.shape
    scale = 1 / torch.as_tensor(temperature, dtype=z_MND.dtype, device=z_MND.device)
    positive_N = reduce(torch.mul, z_MND).sum(-1) * scale
    ids_N = torch.arange(items, device=z_MND.device) if ids_N is None else ids_N
    losses = []
    for r in range(modalities):
        others = [m for m in range(modalities) if m != r]
        key_ND = reduce(torch.mul, (z_MND[m][rows_MMN[r, m]] for m in others))
        key_ids_KN = torch.stack([ids_N[rows_MMN[r, m]] for m in others])
        make = partial(TupleCosineLogits, codes_N=ids_N, key_codes_KN=key_ids_KN)
        tensors = (z_MND[r], key_ND, scale)
        losses.append(mean_contrast(make, tensors, positive_N, selection=RowSelection(items), symmetric=False))
    return losses


def symile_all(z_MND: Tensor, *, temperature: Tensor | float, ids_N: Tensor | None) -> list[Tensor]:
    """Return, for each modality r, the mean cross-entropy of the true tuple among all N^(M - 1) tuples.

    The losses of all modalities r share one table T[i, j, k, ...] of all products. Tuples whose items all share one id
    are masked, except the true tuples.
    """
    modalities, items, _ = z_MND.shape
    order = value_order(z_MND.unbind())
    z_MND = z_MND[order]
    half = modalities // 2
    table = (_product_rows(z_MND[:half]) / temperature) @ _product_rows(z_MND[half:]).mT
    table = table.reshape((items,) * modalities)
    index_N = torch.arange(items, device=z_MND.device)
    positive_N = table[(index_N,) * modalities]
    if ids_N is not None:
        table = table.masked_fill(_same_tuples(ids_N, modalities), -torch.inf)
    every = range(modalities)
    losses = [(torch.logsumexp(table, [m for m in every if m != r]) - positive_N).mean() for r in every]
    return [losses[order.index(m)] for m in every]


def _product_rows(z_MND: Tensor) -> Tensor:
    """(N^M, D) products of all combinations of one row per modality, in row-major order."""
    rows_PD = z_MND[0]
    for z_ND in z_MND[1:]:
        rows_PD = (rows_PD[:, None] * z_ND).reshape(-1, z_ND.shape[-1])
    return rows_PD


def _same_tuples(ids_N: Tensor, modalities: int) -> Tensor:
    """Mask of tuples whose items all share one id but are not all the same item."""
    index_N = torch.arange(len(ids_N), device=ids_N.device)
    shapes = [[-1 if n == m else 1 for n in range(modalities)] for m in range(modalities)]
    same_id, same_item = (
        reduce(torch.logical_and, (values_N.reshape(shapes[0]) == values_N.reshape(shape) for shape in shapes[1:]))
        for values_N in (ids_N, index_N)
    )
    return same_id & ~same_item
