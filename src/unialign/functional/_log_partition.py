"""Kernel sums between two modalities: InfoNCE's log partitions (method: paper Eq. 2) and CUAXU's cross term.

Shapes: `B` items, `N` of them have both modalities, `D` width.
"""

import math
from functools import partial

import torch
from torch import Tensor

from unialign.distributed import Shard
from unialign.ops import (
    Kernel,
    KernelFunction,
    KernelLogits,
    log_row_sums_between,
    mean_contrast,
    mean_excess,
    rowwise_backend,
    select_rows,
)

__all__ = ["cross_log_partition", "cross_log_potential"]


def cross_log_partition(
    x_BD: Tensor,
    y_BD: Tensor,
    *,
    kernel: Kernel,
    temperature: float,
    present_B: Tensor,
    ids_B: Tensor | None,
    shard: Shard | None = None,
) -> tuple[Tensor, Tensor]:
    """1/2 mean_i [ log sum_k kappa(x_i, y_k) + log sum_k kappa(y_i, x_k) ] of unit rows, and whether any row is there.

    k runs over the present rows, the own positive among them, without others of the same id. With `clip` it is what
    symmetric InfoNCE has beside |x - y|^2 / (2 tau).

    Args:
        present_B: items that have both modalities.
    """
    chosen, profile = select_rows(present_B, ids_B, shard), KernelFunction(kernel, temperature)
    x_ND, y_ND = chosen.take(x_BD), chosen.take(y_BD)
    defined = torch.tensor(chosen.size > 0, device=x_BD.device)
    backend = rowwise_backend(x_ND, divided=shard is not None)
    if backend is not None and profile.rate is not None and chosen.size > 0:
        # log kappa = rate (cos - 1).
        scale = x_ND.new_tensor(profile.rate)
        own = profile.rate * ((x_ND * y_ND).sum() / chosen.size - 1)
        return mean_excess(x_ND, y_ND, scale, members=chosen, backend=backend) + own, defined
    own_N = profile.log((x_ND * y_ND).sum(-1))
    value = mean_contrast(partial(KernelLogits, profile=profile), (x_ND, y_ND), own_N, members=chosen, own_weight=0.0)
    return value, defined


def cross_log_potential(
    x_BD: Tensor, y_BD: Tensor, *, t: float, present_B: Tensor, ids_B: Tensor | None, shard: Shard | None = None
) -> tuple[Tensor, Tensor]:
    """log mean_{i != j} exp(-t |x_i - y_j|^2) of unit rows (CUAXU, Fahim et al. 2024), and whether it is defined.

    One mean over all pairs (i, j) of present rows with different ids, so that neither modality comes first.

    Args:
        present_B: items that have both modalities.
    """
    chosen = select_rows(present_B, ids_B, shard)
    x_ND, y_ND = chosen.take(x_BD), chosen.take(y_BD)
    count = int(chosen.others(torch.float64, x_BD.device).sum())
    if count == 0:
        return (x_BD.sum() + y_BD.sum()) * 0.0, torch.tensor(False, device=x_BD.device)
    codes_N = torch.arange(chosen.size, device=x_BD.device) if chosen.codes_N is None else chosen.codes_N
    profile, divided = KernelFunction("clip", 1 / (2 * t)), None if shard is None else (chosen, chosen)
    sums_N = log_row_sums_between(x_ND, y_ND, profile=profile, codes=(codes_N, codes_N), divided=divided)
    return torch.logsumexp(sums_N, 0) - math.log(count), torch.tensor(True, device=x_BD.device)
