"""Compute the uniformity of one modality (paper Eq. 9; Wang & Isola 2020).

Shapes: `B` rows, `D` dimension.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_number, check_temperature
from unialign.batch import make_batch
from unialign.ops import Kernel, KernelFunction, RowSelection, log_row_sums, log_total, select_items

Reduction = Literal["mean_log", "outer_log"]


def uniformity(
    z: Tensor,
    *,
    kernel: Kernel = "clip",
    temperature: float = 0.07,
    reduction: Reduction | None = None,
    order: int = 1,
    present: Tensor | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """Return the uniformity U(Z) <= 0, a scalar to be minimized; 0 if all rows coincide.

    `mean_log`: U = mean_i log [ mean_{j in J_i} kappa(z_i, z_j) ], paper Eq. 9. `outer_log`: (1/order) log mean_i [
    mean_{j in J_i} kappa ]^order; order = M - 1 gives the term of the Hölder divergence, and order = 1 gives the log of
    the mean over pairs (Wang & Isola). J_i is the set of present rows with a different id; rows with empty J_i are
    excluded from the outer mean.

    Args:
        z: (B, D) rows; normalized here.
        kernel: `clip`, `gaussian`, `wang_isola` or `geodesic`.
        temperature: tau > 0; `wang_isola` has no temperature (t = 2).
        reduction: by default `outer_log` for `wang_isola` and `mean_log` for other kernels, as published.
        order: exponent of `outer_log`, at least 1.
        present: (B,) bool.
        ids: (B,) integers; rows with the same id do not repel each other.

    Returns:
        A scalar; 0 with zero gradient if all J_i are empty.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`.
    """
    check_choice("kernel", kernel, get_args(Kernel))
    check_temperature(temperature)
    check_choice("reduction", reduction, (None, *get_args(Reduction)))
    check_number("order", order, "at least 1 and finite", lambda x: 1 <= x < math.inf)
    batch = make_batch({"z": z}, present=None if present is None else {"z": present}, ids=ids, minimum=1)
    # Autocast would compute the cosines in half precision, and 1 / tau would multiply the error of the cosines.
    with torch.autocast(batch.z_MBD.device.type, enabled=False):
        value, _ = unit_uniformity(
            # The gradient of `squeeze` is a view, whereas the gradient of z_MBD[0] is a copy.
            batch.z_MBD.squeeze(0),
            select_items(batch, batch.present_MB[0]),
            kernel=kernel,
            temperature=temperature,
            reduction=reduction,
            order=order,
        )
    return value


def unit_uniformity(
    z_BD: Tensor,
    selection: RowSelection,
    *,
    kernel: Kernel,
    temperature: float,
    reduction: Reduction | None = None,
    order: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return `uniformity` of unit rows, and whether it is defined (at least one nonempty J_i)."""
    if reduction is None:
        reduction = "outer_log" if kernel == "wang_isola" else "mean_log"
    function = KernelFunction(kernel, temperature)
    others_N = selection.others(z_BD.dtype, z_BD.device)
    rows_N = others_N > 0
    count = int(rows_N.sum())
    defined = torch.tensor(count > 0, device=z_BD.device)
    if count == 0:
        return z_BD.sum() * 0.0, defined
    z_ND = selection.take(z_BD)
    if reduction == "outer_log" and order == 1:
        if selection.codes_N is None:
            return log_total(z_ND, kernel=function, selection=selection) - math.log(count * (count - 1)), defined
        weights_N = torch.where(rows_N, 1 / others_N, 0.0)
        return log_total(z_ND, kernel=function, selection=selection, weights_N=weights_N) - math.log(count), defined
    sums_N = log_row_sums(z_ND, kernel=function, selection=selection)
    log_mean_N = torch.where(rows_N, sums_N, 0.0) - torch.log(others_N.clamp(min=1))
    if reduction == "mean_log":
        return log_mean_N.sum() / count, defined
    return (torch.logsumexp(order * log_mean_N[rows_N], 0) - math.log(count)) / order, defined


def log_potential(z_BD: Tensor, selection: RowSelection, *, t: float) -> tuple[Tensor, Tensor]:
    """Return log mean_{i != j} exp(-t |z_i - z_j|^2) of unit rows (Wang & Isola 2020), and whether it is defined.

    The value is the uniformity with the `clip` kernel at tau = 1 / (2 t) and the reduction `outer_log`.
    """
    return unit_uniformity(z_BD, selection, kernel="clip", temperature=1 / (2 * t), reduction="outer_log")
