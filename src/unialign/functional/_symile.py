"""Contrast of multilinear inner products (Symile, Saporta et al. 2024).

MIP(z^1, ..., z^M) = sum_d prod_m z^m_d generalises the inner product to M vectors. For each modality r in turn, item
i's own tuple is held against tuples of the others: N drawn ones (the paper's O(N) negatives), or all N^(M - 1).

Shapes: `M` modalities, `N` complete items, `D` width; `r` the modality that predicts, `m` another one.
"""

from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from unialign.functional._contrast import contrast
from unialign.ops import TupleCosineLogits, select_rows

__all__ = ["all_contrasts", "all_contrasts_bytes", "draw_permutations", "sampled_contrasts"]


def draw_permutations(modalities: int, items: int, *, seed: int, draw: int) -> Tensor:
    """(M, M, N) int64: row [r, m] says from which items modality m lends its vectors to the keys of modality r.

    A pure function of its arguments. Two modalities have one other each: their keys stay as they are, since a
    permutation would only rename them.
    """
    identity_N = torch.arange(items)
    rows_MMN = identity_N.repeat(modalities, modalities, 1)
    if modalities == 2:
        return rows_MMN
    for r in range(modalities):
        # NumPy promises the same words for the same entropy for ever. The generator is the CPU's on every device.
        words = np.random.SeedSequence([seed, draw, r]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))
        for m in range(modalities):
            if m != r:
                rows_MMN[r, m] = torch.randperm(items, generator=generator)
    return rows_MMN


def sampled_contrasts(
    z_MND: Tensor, *, rows_MMN: Tensor, temperature: Tensor | float, ids_N: Tensor | None
) -> list[Tensor]:
    """For each modality r the mean cross-entropy of item i's own tuple among the N keys that `rows_MMN` makes.

    Key j is the product of the others' vectors, each taken from the item that `rows_MMN[r, m, j]` names; on the
    diagonal stands the true tuple instead. A key whose members all come from items with the query's id is the query's
    own tuple and leaves the softmax.
    """
    modalities, items, _ = z_MND.shape
    scale = 1 / torch.as_tensor(temperature, dtype=z_MND.dtype, device=z_MND.device)
    own_N = reduce(torch.mul, z_MND).sum(-1) * scale
    ids_N = torch.arange(items, device=z_MND.device) if ids_N is None else ids_N
    everyone = select_rows(torch.ones(items, dtype=torch.bool, device=z_MND.device), None)
    losses = []
    for r in range(modalities):
        others = [m for m in range(modalities) if m != r]
        key_ND = reduce(torch.mul, (z_MND[m][rows_MMN[r, m]] for m in others))
        key_ids_KN = torch.stack([ids_N[rows_MMN[r, m]] for m in others])
        make = partial(TupleCosineLogits, codes_N=ids_N, key_codes_KN=key_ids_KN)
        losses.append(contrast(make, (z_MND[r], key_ND, scale), own_N, everyone, sides="rows"))
    return losses


def all_contrasts(z_MND: Tensor, *, temperature: Tensor | float, ids_N: Tensor | None) -> list[Tensor]:
    """For each modality r the mean cross-entropy of item i's own tuple among the N^(M - 1) tuples of the others.

    One table T[i, j, k, ...] of all products serves every r. Tuples of items that all share one id leave the softmax,
    except each item's own.
    """
    modalities, items, _ = z_MND.shape
    half = modalities // 2
    table = (_product_rows(z_MND[:half]) / temperature) @ _product_rows(z_MND[half:]).mT
    table = table.reshape((items,) * modalities)
    index_N = torch.arange(items, device=z_MND.device)
    own_N = table[(index_N,) * modalities]
    if ids_N is not None:
        table = table.masked_fill(_same_tuples(ids_N, modalities), -torch.inf)
    every = range(modalities)
    return [(torch.logsumexp(table, [m for m in every if m != r]) - own_N).mean() for r in every]


def all_contrasts_bytes(modalities: int, items: int, width: int, itemsize: int) -> int:
    """What `all_contrasts` and its gradient need at once: five tables, two masks, both factors and their gradients."""
    half = modalities // 2
    tuples: int = items**modalities
    rows: int = items**half + items ** (modalities - half)
    return tuples * (5 * itemsize + 2) + 2 * rows * width * itemsize


def _product_rows(z_MND: Tensor) -> Tensor:
    """Products of all combinations of rows, one from each modality, (N^M, D), the last modality's index fastest."""
    rows_PD = z_MND[0]
    for z_ND in z_MND[1:]:
        rows_PD = (rows_PD[:, None] * z_ND).reshape(-1, z_ND.shape[-1])
    return rows_PD


def _same_tuples(ids_N: Tensor, modalities: int) -> Tensor:
    """Mask of the tuples whose items all have one id, but are not all one item."""
    items = len(ids_N)

    def along(values_N: Tensor, m: int) -> Tensor:
        return values_N.reshape([items if n == m else 1 for n in range(modalities)])

    index_N = torch.arange(items, device=ids_N.device)
    same, own = (
        reduce(torch.logical_and, (along(values_N, 0) == along(values_N, m) for m in range(1, modalities)))
        for values_N in (ids_N, index_N)
    )
    return same & ~own
