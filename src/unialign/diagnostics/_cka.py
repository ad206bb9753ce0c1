"""Do two modalities arrange the items alike, wherever each of them lies? Answers also for unequal widths.

Shapes: `n` items, `D`, `E` widths, `P` permutations.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["shared_structure"]

_ITEMS = 1024
_PERMUTATIONS = 200


def shared_structure(x_nD: Tensor, y_nE: Tensor, *, seed: int) -> tuple[float, float]:
    """Debiased linear CKA of the rows, and the p-value of a permutation test of "rows are paired at random".

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the unbiased HSIC of Song et al. (JMLR 2012, Eq. 5) as in
    Nguyen et al. (ICLR 2021); 1 = one is a rotation and scaling of the other, about 0 = nothing shared. NaN where a
    modality has no spread.
    """
    items = min(len(x_nD), _ITEMS)
    if items < 8:
        return float("nan"), float("nan")
    k_nn, l_nn = _centred(x_nD[:items]), _centred(y_nE[:items])
    norm = float((k_nn.square().sum() * l_nn.square().sum()).sqrt())
    if not norm > 1e-12:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    seen = float((k_nn * l_nn).sum())
    above = 0
    for _ in range(_PERMUTATIONS):
        order = torch.from_numpy(rng.permutation(items))
        above += float((k_nn * l_nn[order][:, order]).sum()) >= seen
    return seen / norm, (1 + above) / (1 + _PERMUTATIONS)


def _centred(x_nD: Tensor) -> Tensor:
    """U-centring (Székely & Rizzo 2014): products of two such matrices sum to n (n - 3) times the unbiased HSIC."""
    items = len(x_nD)
    gram_nn = x_nD @ x_nD.mT
    gram_nn.fill_diagonal_(0.0)
    row_n = gram_nn.sum(1) / (items - 2)
    gram_nn = gram_nn - row_n[:, None] - row_n + gram_nn.sum() / ((items - 1) * (items - 2))
    gram_nn.fill_diagonal_(0.0)
    return gram_nn
