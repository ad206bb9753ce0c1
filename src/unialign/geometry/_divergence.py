"""Divergences between the distributions of modalities, estimated by Gaussian kernel densities on the sphere.

If the bandwidth is so small that one row outweighs all others (such as 0.07 in 64 or more dimensions), a divergence
compares paired points rather than distributions, and a `DivergenceWarning` is issued. If the bandwidth is so large that
all kernel values are nearly equal, every divergence is near 0. `divergence_profile` evaluates a grid of bandwidths.

Shapes: `M` modalities, `B` items, `N` present rows, `D` dimension.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer
from unialign.errors import ConfigError, ShapeError
from unialign.functional import (
    Estimator,
    exact_sizes,
    holder_of_rows,
    log_densities,
    log_mean_exp,
    unit_cauchy_schwarz,
    unit_mmd2,
)
from unialign.geometry._bandwidth import (
    Bandwidth,
    median_of,
    neighbors,
    number_of,
    self_pairs_of,
    warn_of_few_neighbors,
)
from unialign.geometry._validation import double_batch, present_rows, unit_pair

Normalization = Literal["none", "modalities", "modalities_minus_one"]

# Ratio of sigma to the squared median distance, for the kernel exp(-d^2 / sigma) used by the authors of GCSD.
_GCSD_WIDTH = 0.15


def holder_divergence(
    embeddings: Mapping[str, Any],
    *,
    bandwidth: Bandwidth,
    estimator: Estimator = "plugin_avg",
    reference: str | None = None,
    present: Mapping[str, Any] | None = None,
    max_bytes: int = 2**30,
) -> Tensor:
    """Return the Hölder divergence D_H = (1/M) sum_m log int p_m^M - log int prod_m p_m (paper Eqs. 15, 16).

    D_H is nonnegative, and 0 if all distributions are equal, including collapsed distributions. For M = 2, D_H is half
    of D_CS. Estimators:

    - `plugin`: as in the paper, evaluated at the rows of one reference modality; may be negative.
    - `plugin_avg`: averages over all references inside the logarithm; rarely negative.
    - `pooled`: evaluated at the rows of all modalities; nonnegative, for training.
    - `debiased`: excludes the rows of the same item from the densities at each row; near 0 for independent samples of
      one distribution unless the bandwidth is tiny. The estimate is noisy and may be negative.
    - `exact`: closed-form integrals over B^M tuples; nonnegative.

    Args:
        embeddings: modality -> (B, D) floating tensor or array; each density uses all present rows of its modality.
        bandwidth: tau > 0, shared by all modalities, or `median` (see `median_bandwidth`; without gradient).
        estimator: see above.
        reference: a modality, only for `plugin` (by default the first) and `debiased` (by default the mean over all).
        present: modality -> (B,) bool.
        max_bytes: memory limit for the tuples of `exact`, and for the gradient.

    Returns:
        A float64 scalar; differentiable if an input requires grad.

    Raises:
        ShapeError, NonFiniteError: see `unialign.batch.make_batch`; ShapeError also for a modality without present rows
            (for `debiased`, with fewer than two).
        ConfigError: an unknown option, a bandwidth that is not positive, or a computation that needs more than
            `max_bytes` of memory.
    """
    check_choice("estimator", estimator, get_args(Estimator))
    check_integer("max_bytes", max_bytes, low=1)
    batch = double_batch(embeddings, present)
    if reference is not None:
        check_choice("reference", reference, batch.names)
        if estimator not in ("plugin", "debiased"):
            raise ConfigError(
                f"estimator {estimator!r} has no reference modality, got reference={reference!r}; "
                f"use 'plugin' or 'debiased', or omit `reference`"
            )
    least = 2 if estimator == "debiased" else 1
    rows, items = present_rows(batch, f"the {estimator!r} estimator", least=least)
    tau = number_of(bandwidth, rows)
    _check_bytes(rows, estimator, max_bytes)
    warn_of_few_neighbors(rows, tau, self_pairs_of(estimator))
    center = None if reference is None else batch.index(reference)
    return holder_of_rows(rows, items, bandwidth=tau, estimator=estimator, reference=center)


def gcsd(
    embeddings: Mapping[str, Any],
    *,
    normalization: Normalization = "none",
    present: Mapping[str, Any] | None = None,
    max_bytes: int = 2**30,
) -> Tensor:
    """Return the generalized Cauchy-Schwarz divergence -log[ int prod p_t / prod_t (int p_t^M)^(1/M) ] (2405.04061).

    GCSD is the Hölder divergence as computed by Lu et al., with the kernel exp(-d^2 / (0.15 median(d)^2)) and the cross
    integral averaged over all references (`plugin_avg`). The value is divided by M for the normalization `modalities`
    (as for domain adaptation) and by M - 1 for `modalities_minus_one` (as for clustering). Compare only values with the
    same normalization.

    Args, Returns, Raises: as in `holder_divergence`. The prescribed bandwidth is small, so expect a
    `DivergenceWarning`.
    """
    check_choice("normalization", normalization, get_args(Normalization))
    check_integer("max_bytes", max_bytes, low=1)
    rows, items = present_rows(double_batch(embeddings, present), "gcsd")
    tau = median_of(rows) * math.sqrt(_GCSD_WIDTH / 2)
    _check_bytes(rows, "plugin_avg", max_bytes)
    warn_of_few_neighbors(rows, tau, "included")
    divisor = {"none": 1, "modalities": len(rows), "modalities_minus_one": len(rows) - 1}[normalization]
    return holder_of_rows(rows, items, bandwidth=tau, estimator="plugin_avg") / divisor


def cauchy_schwarz_divergence(x: Any, y: Any, *, bandwidth: Bandwidth) -> Tensor:
    """Return D_CS = log mean K_xx + log mean K_yy - 2 log mean K_xy (Jenssen et al. 2006), float64, at least 0.

    D_CS is -2 log of the cosine between the kernel mean embeddings, and 0 if and only if the densities are equal.

    Args:
        x, y: floating (N, D) tensors or arrays; rows are L2-normalized here. The sets may differ in size and need not
            be paired.
        bandwidth: tau > 0 of exp(-d^2 / (2 tau^2)), or `median`.

    Raises:
        ShapeError, NonFiniteError: see `unialign.geometry.modality_gap`.
        ConfigError: a bandwidth that is not positive.
    """
    rows = unit_pair(x, y, paired=False)
    tau = number_of(bandwidth, rows)
    warn_of_few_neighbors(rows, tau, "included")
    return unit_cauchy_schwarz(*rows, bandwidth=tau)


def mmd2(x: Any, y: Any, *, bandwidth: Bandwidth, unbiased: bool = False) -> Tensor:
    """Return MMD^2 = mean K_xx + mean K_yy - 2 mean K_xy (Gretton et al., JMLR 2012), float64 in [-2, 2].

    Args:
        x, y, bandwidth: as in `cauchy_schwarz_divergence`.
        unbiased: exclude self pairs. The result has mean zero for equal distributions, may be negative, and requires at
            least two rows in each set. The biased estimate is nonnegative and larger by at most 1/N_x + 1/N_y.

    Raises:
        As in `cauchy_schwarz_divergence`; ShapeError also for a single row if `unbiased`.
    """
    check_choice("unbiased", unbiased, (True, False))
    rows = unit_pair(x, y, paired=False)
    for name, z_ND in zip("xy", rows, strict=True):
        if unbiased and len(z_ND) < 2:
            raise ShapeError(
                f"{name!r} has one row, but the unbiased mmd2 needs at least two; add rows or use unbiased=False"
            )
    tau = number_of(bandwidth, rows)
    warn_of_few_neighbors(rows, tau, "excluded" if unbiased else "included")
    return unit_mmd2(*rows, bandwidth=tau, unbiased=unbiased)


def median_bandwidth(embeddings: Mapping[str, Any], *, present: Mapping[str, Any] | None = None) -> float:
    """Return the median Euclidean distance between rows of the pooled modalities, in [0.01, 2] (median heuristic).

    If there are more than 2,048 rows, a fixed, evenly spaced subset of 2,048 rows is used. If the rows coincide, the
    result is 0.01, since unit rows closer than this are treated as one point.

    Raises:
        ShapeError, NonFiniteError: see `unialign.batch.make_batch` (one modality suffices); ShapeError also for
            fewer than two present rows.
    """
    batch = double_batch(embeddings, present, minimum=1)
    rows = [z_BD[present_B] for z_BD, present_B in zip(batch.z_MBD, batch.present_MB, strict=True)]
    if sum(map(len, rows)) < 2:
        raise ShapeError("median_bandwidth needs at least two present rows")
    return median_of(rows)


def effective_neighbors(
    embeddings: Mapping[str, Any],
    *,
    bandwidth: Bandwidth,
    estimator: Estimator = "plugin_avg",
    present: Mapping[str, Any] | None = None,
) -> float:
    """Return the effective number of rows of a density, exp(entropy of p_i) with p_ij = kappa_ij / sum_j kappa_ij.

    The number is averaged over the rows of a modality, then over modalities. As in the estimator, the sum includes the
    row itself, which outweighs all others at small bandwidths; for `debiased`, the sum excludes the row itself. The
    number ranges from 1 to B; below 2, the divergence compares points rather than distributions.

    Arguments and errors are those of `holder_divergence`; one modality suffices.
    """
    check_choice("estimator", estimator, get_args(Estimator))
    batch = double_batch(embeddings, present, minimum=1)
    least = 2 if estimator == "debiased" else 1
    rows, _ = present_rows(batch, f"the {estimator!r} estimator", least=least)
    return neighbors(rows, number_of(bandwidth, rows), self_pairs_of(estimator))


def holder_upper_bound(
    embeddings: Mapping[str, Any],
    *,
    bandwidth: Bandwidth,
    anchor: str,
    uniformity: Literal["outer_log", "mean_log"] = "outer_log",
    present: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return an upper bound of the `plugin` Hölder divergence with the anchor as reference.

    `outer_log`: (1/M) sum_m log mean_j s_j^(M-1) + (M-1)/(2 tau^2) L_align + (M-1) log B, with s_j = mean_k kappa_jk
    including k = j. This is an upper bound for any embeddings, derived by keeping only the true tuples of the cross
    integral and applying Jensen's inequality to these tuples.

    `mean_log`: as `outer_log`, but with (M-1) mean_j log s_j instead of log mean_j s_j^(M-1), as in the training loss.
    The result is smaller by at most (M-1)^2 R^2 / 8, where R is the range of log s, and is therefore not a bound.

    If rows are absent, L_align covers only the C complete items, and the last term becomes log(N_a / C) + sum_{n != a}
    log N_n, with N_m the number of present rows of modality m.

    Args:
        anchor: a modality.
        uniformity: see above.
        embeddings, bandwidth, present: as in `holder_divergence`.

    Returns:
        A float64 scalar; differentiable if an input requires grad.

    Raises:
        As in `holder_divergence`; also ShapeError if no item is complete.
    """
    check_choice("uniformity", uniformity, ("outer_log", "mean_log"))
    batch = double_batch(embeddings, present)
    check_choice("anchor", anchor, batch.names)
    rows, _ = present_rows(batch, "the upper bound")
    complete_B = batch.present_MB.all(0)
    if not bool(complete_B.any()):
        raise ShapeError("the upper bound needs at least one complete item (with all modalities), but there is none")
    tau, power = number_of(bandwidth, rows), len(rows) - 1
    spread = []
    for z_ND in rows:
        logs_N = power * log_densities(z_ND, z_ND, bandwidth=tau)
        spread.append(log_mean_exp(logs_N) if uniformity == "outer_log" else logs_N.mean())
    tuples_MCD = batch.z_MBD[:, complete_B]
    pull = (tuples_MCD - tuples_MCD[batch.index(anchor)]).square().sum((0, 2)).mean() / (2 * tau * tau)
    left_out = math.fsum(math.log(len(z_ND)) for z_ND in rows) - math.log(tuples_MCD.shape[1])
    return torch.stack(spread).mean() + pull + left_out


def bytes_needed(rows: Sequence[Tensor], estimator: Estimator) -> int:
    """Return the number of bytes for the tuples of `exact`, or for the kernel values saved for the gradient."""
    counts = [len(z_ND) for z_ND in rows]
    gradient = any(z_ND.requires_grad for z_ND in rows)
    if estimator == "exact":
        sizes = exact_sizes(counts)
        # Buffers for the sum, its last term and the exponential; a gradient also saves the exponents of all integrals.
        return 8 * (3 * max(sizes) + (sum(sizes) if gradient else 0))
    return 8 * sum(counts) ** 2 if gradient else 0


def _check_bytes(rows: Sequence[Tensor], estimator: Estimator, max_bytes: int) -> None:
    needed = bytes_needed(rows, estimator)
    if needed > max_bytes:
        why = f"compares all {len(rows)}-tuples of rows" if estimator == "exact" else "keeps all pairs for the gradient"
        raise ConfigError(
            f"the {estimator!r} estimator {why} and needs about {needed:,} bytes for {[len(z) for z in rows]} rows; "
            f"max_bytes is {max_bytes:,}. Use fewer rows or another estimator"
        )
