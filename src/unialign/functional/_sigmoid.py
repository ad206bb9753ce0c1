"""Pairwise sigmoid contrast (SigLIP, Zhai et al. 2023, Eq. 1): every pair of rows is one yes-or-no question.

Shapes: `B` items.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["sigmoid_contrast"]


def sigmoid_contrast(logits_BB: Tensor, pairs_BB: Tensor) -> Tensor:
    """-(1/B) sum_ij log sigma(y_ij logit_ij), y = +1 on the diagonal and -1 elsewhere.

    Args:
        logits_BB: scale * cosine + bias.
        pairs_BB: mask of the pairs that count, from `contrast_keys`; B is the number of its diagonal entries.

    Returns:
        A scalar of at least 0; 0 with zero gradient when no row is left.
    """
    own_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    loss_BB = -F.logsigmoid(torch.where(own_BB, logits_BB, -logits_BB))
    return torch.where(pairs_BB, loss_BB, 0.0).sum() / pairs_BB.diagonal().sum().clamp(min=1)
