"""Compare the similarity structure of the items in two modalities, whose coordinates and dims may differ.

Shapes: `n` items, `D` and `E` dims.
"""

import numpy as np
import torch
from torch import Tensor

_MAX_ITEMS = 1024
_PERMUTATIONS = 200


def debiased_cka(x_nD: Tensor, y_nE: Tensor, *, seed: int) -> tuple[float, float]:
    """Return the debiased linear CKA of paired rows, and its p-value from a permutation test of the pairing.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the unbiased HSIC of Song et al. (JMLR 2012, Eq. 5) as in Nguyen
    et al. (ICLR 2021). It is NaN for a modality without spread or for fewer than 8 items.
    """
    items = min(len(x_nD), _MAX_ITEMS)
    if items < 8:
        return float("nan"), float("nan")
    k_nn, l_nn = _u_centered(x_nD[:items]), _u_centered(y_nE[:items])
    norm = float((k_nn.square().sum() * l_nn.square().sum()).sqrt())
    if not norm > 1e-12:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    observed = float((k_nn * l_nn).sum())
    above = 0
    for _ in range(_PERMUTATIONS):
        order = torch.from_numpy(rng.permutation(items))
        above += float((k_nn * l_nn.index_select(0, order).index_select(1, order)).sum()) >= observed
    return observed / norm, (1 + above) / (1 + _PERMUTATIONS)


def _u_centered(x_nD: Tensor) -> Tensor:
    """Return the U-centered Gram matrix (Székely & Rizzo 2014); the entrywise product of two of them sums to n (n - 3)
    times the unbiased HSIC.
    """
    items = len(x_nD)
    gram_nn = x_nD @ x_nD.mT
    gram_nn.fill_diagonal_(0.0)
    row_n = gram_nn.sum(1) / (items - 2)
    gram_nn = gram_nn - row_n[:, None] - row_n + gram_nn.sum() / ((items - 1) * (items - 2))
    gram_nn.fill_diagonal_(0.0)
    return gram_nn
