"""Compute log-sums of kernels between two modalities, for InfoNCE (paper Eq. 2) and the cross term of CUAXU.

Shapes: `B` items, `N` items with both modalities, `D` dimension.
"""

import math
from functools import partial

import torch
from torch import Tensor

from unialign.functional._value_order import in_value_order
from unialign.ops import (
    Kernel,
    KernelFunction,
    KernelLogits,
    RowSelection,
    log_row_sums_between,
    mean_contrast,
    mean_excess,
    rowwise_backend,
)


def cross_log_partition(
    x_BD: Tensor, y_BD: Tensor, selection: RowSelection, *, kernel: Kernel, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return 1/2 mean_i [ log sum_k kappa(x_i, y_k) + log sum_k kappa(y_i, x_k) ], and whether any item is selected.

    The sums over k include the positive and the present rows with a different id. For the `clip` kernel, symmetric
    InfoNCE is this value plus the mean of |x - y|^2 / (2 tau) over the true pairs.

    Args:
        selection: items that have both modalities (`unialign.ops.select_items`).
    """
    function = KernelFunction(kernel, temperature)
    x_ND, y_ND = in_value_order(selection.take(x_BD), selection.take(y_BD))
    defined = torch.tensor(selection.size > 0, device=x_BD.device)
    backend = rowwise_backend(x_ND, sharded=selection.shard is not None)
    if backend is not None and function.rate is not None and selection.size > 0:
        # log kappa = rate (cos - 1).
        scale = x_ND.new_tensor(function.rate)
        positive = function.rate * ((x_ND * y_ND).sum() / selection.size - 1)
        return mean_excess(x_ND, y_ND, scale, selection=selection, backend=backend) + positive, defined
    positive_N = function.log((x_ND * y_ND).sum(-1))
    make = partial(KernelLogits, kernel=function)
    value = mean_contrast(make, (x_ND, y_ND), positive_N, selection=selection, positive_weight=0.0)
    return value, defined


def cross_log_potential(x_BD: Tensor, y_BD: Tensor, selection: RowSelection, *, t: float) -> tuple[Tensor, Tensor]:
    """Return log mean_{i != j} exp(-t |x_i - y_j|^2) (CUAXU, Fahim et al. 2024), and whether this value is defined.

    The mean over all pairs (i, j) of present rows with different ids is symmetric in the two modalities.

    Args:
        selection: items that have both modalities (`unialign.ops.select_items`).
    """
    x_ND, y_ND = in_value_order(selection.take(x_BD), selection.take(y_BD))
    count = int(selection.others(torch.float64, x_BD.device).sum())
    defined = torch.tensor(count > 0, device=x_BD.device)
    if count == 0:
        return (x_BD.sum() + y_BD.sum()) * 0.0, defined
    codes_N = torch.arange(selection.size, device=x_BD.device) if selection.codes_N is None else selection.codes_N
    kernel, layouts = KernelFunction("clip", 1 / (2 * t)), None if selection.shard is None else (selection, selection)
    sums_N = log_row_sums_between(x_ND, y_ND, kernel=kernel, codes=(codes_N, codes_N), layouts=layouts)
    return torch.logsumexp(sums_N, 0) - math.log(count), defined
