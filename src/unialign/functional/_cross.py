"""Kernel sums between two modalities: InfoNCE's log partitions (method: paper Eq. 2) and CUAXU's cross term.

Shapes: `B` items, `D` width.
"""

import math

import torch
from torch import Tensor

from unialign.functional._contrast import contrast_keys, row_log_partitions
from unialign.kernels._profile import Kernel, log_kernel

__all__ = ["cross_log_partition", "cross_log_potential"]


def cross_log_partition(
    x_BD: Tensor, y_BD: Tensor, *, kernel: Kernel, temperature: float, present_B: Tensor, ids_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """1/2 mean_i [ log sum_k kappa(x_i, y_k) + log sum_k kappa(y_i, x_k) ] of unit rows, and whether any row is there.

    k runs over the present rows, the own positive among them, without others of the same id. With `clip` it is what
    symmetric InfoNCE has beside |x - y|^2 / (2 tau).

    Args:
        present_B: items that have both modalities.
    """
    keys_BB = contrast_keys(present_B, ids_B)
    logk_BB = log_kernel(x_BD @ y_BD.mT, kernel=kernel, temperature=temperature)
    total = x_BD.new_zeros(())
    for table_BB, allowed_BB in ((logk_BB, keys_BB), (logk_BB.mT, keys_BB.mT)):
        logz_B, rows_B = row_log_partitions(table_BB, allowed_BB)
        total = total + torch.where(rows_B, logz_B, 0.0).sum()
    count = present_B.sum()
    return total / (2 * count.clamp(min=1)), count > 0


def cross_log_potential(
    x_BD: Tensor, y_BD: Tensor, *, t: float, present_B: Tensor, ids_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """log mean_{i != j} exp(-t |x_i - y_j|^2) of unit rows (CUAXU, Fahim et al. 2024), and whether it is defined.

    One mean over all pairs (i, j) of present rows with different ids, so that neither modality comes first.

    Args:
        present_B: items that have both modalities.
    """
    own_BB = torch.eye(len(x_BD), dtype=torch.bool, device=x_BD.device)
    pairs_BB = contrast_keys(present_B, ids_B) & ~own_BB
    logk_BB = log_kernel(x_BD @ y_BD.mT, kernel="clip", temperature=1 / (2 * t))
    count = pairs_BB.sum()
    # The LSE of nothing is -inf with a NaN gradient: where no pair is left all of the (finite) table stays.
    masked_BB = torch.where(pairs_BB | (count == 0), logk_BB, -math.inf)
    value = torch.logsumexp(masked_BB.flatten(), 0) - torch.log(count.clamp(min=1).to(x_BD.dtype))
    return torch.where(count > 0, value, 0.0), count > 0
