"""Uniformity inside one modality (paper Eq. 9; Wang & Isola 2020).

Shapes: `B` rows, `D` width.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_number, check_temperature
from unialign.embeddings import Batch, make_batch
from unialign.kernels._profile import Kernel, log_kernel

__all__ = [
    "Reduction",
    "log_potential",
    "modality_log_potentials",
    "uniformity",
    "unit_uniformity",
]

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
    """U(Z): how crowded the rows are, as a scalar of at most 0; 0 means that all rows coincide. Minimise it.

    `mean_log`: U = mean_i log [ mean_{j in J_i} kappa(z_i, z_j) ], paper Eq. 9. `outer_log`:
    (1/order) log mean_i [ mean_{j in J_i} kappa ]^order; with order = M - 1 it is what the Hölder divergence contains,
    with order = 1 the log of the mean over pairs (Wang & Isola). J_i = the present rows other than i with another id; a
    row with empty J_i leaves the outer mean.

    Args:
        z: (B, D) rows; normalised here.
        kernel: `clip`, `gaussian`, `wang_isola` or `geodesic`.
        temperature: tau > 0; `wang_isola` has none (t = 2).
        reduction: None means `outer_log` for `wang_isola` and `mean_log` for the others, each as published.
        order: exponent of `outer_log`, at least 1.
        present: (B,) bool.
        ids: (B,) integers; equal ids do not repel.

    Returns:
        A scalar. 0, with zero gradient, when no row has another one to be compared with.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.embeddings.make_batch`.
    """
    check_choice("kernel", kernel, get_args(Kernel))
    check_temperature(temperature)
    check_choice("reduction", reduction, (None, *get_args(Reduction)))
    check_number("order", order, "at least 1 and finite", lambda x: 1 <= x < math.inf)
    batch = make_batch({"z": z}, present=None if present is None else {"z": present}, ids=ids, minimum=1)
    # Autocast would take the cosines in half precision, and temperatures multiply their error.
    with torch.autocast(batch.z_MBD.device.type, enabled=False):
        value, _ = unit_uniformity(
            batch.z_MBD[0],
            kernel=kernel,
            temperature=temperature,
            reduction=reduction,
            order=order,
            present_B=batch.present_MB[0],
            ids_B=batch.ids_B,
        )
    return value


def unit_uniformity(
    z_BD: Tensor,
    *,
    kernel: Kernel,
    temperature: float,
    reduction: Reduction | None = None,
    order: int = 1,
    present_B: Tensor,
    ids_B: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`uniformity` of rows that are unit already; also says whether it is defined (some row has a partner)."""
    if reduction is None:
        reduction = "outer_log" if kernel == "wang_isola" else "mean_log"
    log_mean_B, rows_B = _row_log_means(z_BD, kernel=kernel, temperature=temperature, present_B=present_B, ids_B=ids_B)
    count = rows_B.sum()
    if reduction == "mean_log":
        return log_mean_B.sum() / count.clamp(min=1), count > 0
    masked_B = torch.where(rows_B, order * log_mean_B, -torch.inf)
    # The LSE of nothing is -inf with a NaN gradient: give it one harmless constant when no row is left.
    masked_B = torch.where(count > 0, masked_B, z_BD.new_zeros(()))
    value = (torch.logsumexp(masked_B, 0) - torch.log(count.clamp(min=1).to(z_BD.dtype))) / order
    return torch.where(count > 0, value, z_BD.new_zeros(())), count > 0


def log_potential(z_BD: Tensor, *, t: float, present_B: Tensor, ids_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """log mean_{i != j} exp(-t |z_i - z_j|^2) of unit rows (Wang & Isola 2020), and whether it is defined.

    It is the `clip` kernel at tau = 1 / (2 t) with the log outside.
    """
    return unit_uniformity(
        z_BD, kernel="clip", temperature=1 / (2 * t), reduction="outer_log", present_B=present_B, ids_B=ids_B
    )


def modality_log_potentials(batch: Batch, *, t: float) -> dict[str, Tensor]:
    """`log_potential` of each modality where it is defined, by name."""
    values = {}
    for m, name in enumerate(batch.names):
        value, defined = log_potential(batch.z_MBD[m], t=t, present_B=batch.present_MB[m], ids_B=batch.ids_B)
        if bool(defined):
            values[name] = value
    return values


def _row_log_means(
    z_BD: Tensor, *, kernel: Kernel, temperature: float, present_B: Tensor, ids_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """log mean_{j in J_i} kappa(z_i, z_j) for each row, 0 where J_i is empty, and the mask of rows where it is not."""
    logk_BB = log_kernel(z_BD @ z_BD.mT, kernel=kernel, temperature=temperature)
    # Self pairs are masked before the sum, not subtracted after it: at small temperatures they are all of it.
    pairs_BB = present_B[:, None] & present_B[None, :] & ~torch.eye(len(z_BD), dtype=torch.bool, device=z_BD.device)
    if ids_B is not None:
        pairs_BB = pairs_BB & (ids_B[:, None] != ids_B[None, :])
    counts_B = pairs_BB.sum(1)
    rows_B = counts_B > 0
    masked_BB = torch.where(pairs_BB | ~rows_B[:, None], logk_BB, -math.inf)
    log_mean_B = torch.logsumexp(masked_BB, 1) - torch.log(counts_B.clamp(min=1).to(z_BD.dtype))
    return torch.where(rows_B, log_mean_B, 0.0), rows_B
