"""Compute Hölder (paper Eqs. 15, 16), Cauchy-Schwarz and MMD divergences between kernel densities of modalities.

p_m is the density from `log_densities`. All densities share one bandwidth tau, so the constant of the kernel cancels.
The divergences are computed with differentiable log-sum-exps, so values and gradients are finite for both coinciding
and distant rows.

Shapes: `M` modalities, `N` present rows of a modality (N may differ), `P` rows of all modalities, `D` dimension.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._density import log_densities, log_mean_exp
from unialign.functional._value_order import value_order
from unialign.ops import RowSelection, ShardLayouts, shard_layout

Estimator = Literal["plugin", "plugin_avg", "pooled", "debiased", "exact"]


def unit_cauchy_schwarz(x_ND: Tensor, y_ND: Tensor, *, bandwidth: float, layouts: ShardLayouts = None) -> Tensor:
    """Return D_CS = log mean K_xx + log mean K_yy - 2 log mean K_xy >= 0.

    D_CS is -2 log of the cosine between the two kernel mean embeddings.

    Args:
        x_ND, y_ND: unit rows, at least one in each set; the sets may differ in size and need not be paired.
        bandwidth: tau > 0.
        layouts: shard layouts of both sets, to distribute the work across processes.
    """
    sets = x_ND, y_ND
    pairs = (0, 0), (1, 1), tuple(value_order(sets))
    xx, yy, xy = (_log_mean_kernel(sets, a, b, bandwidth, layouts) for a, b in pairs)
    return xx + yy - 2 * xy


def unit_mmd2(
    x_ND: Tensor, y_ND: Tensor, *, bandwidth: float, unbiased: bool = False, layouts: ShardLayouts = None
) -> Tensor:
    """Return MMD^2 = mean K_xx + mean K_yy - 2 mean K_xy (Gretton et al., JMLR 2012, Eqs. 3 and 5), in [-2, 2].

    Args:
        x_ND, y_ND: unit rows, at least one in each set (two if `unbiased`).
        bandwidth: tau > 0.
        unbiased: exclude self pairs from K_xx and K_yy. The expectation is then 0 for equal distributions, so values
            may be negative.
        layouts: as in `unit_cauchy_schwarz`.
    """

    sets = x_ND, y_ND
    xy, xx, yy = (
        _log_mean_kernel(sets, a, b, bandwidth, layouts, distinct=unbiased and a == b).exp()
        for a, b in (tuple(value_order(sets)), (0, 0), (1, 1))
    )
    return xx + yy - 2 * xy


def _log_mean_kernel(
    sets: tuple[Tensor, Tensor], a: int, b: int, bandwidth: float, layouts: ShardLayouts, *, distinct: bool = False
) -> Tensor:
    items = torch.arange(len(sets[a]), device=sets[a].device)
    pair = None if layouts is None else (layouts[a], layouts[b])
    excluded = (items, items) if distinct else None
    return log_mean_exp(log_densities(sets[a], sets[b], bandwidth=bandwidth, items=excluded, layouts=pair))


def unit_holder(
    batch: Batch, *, bandwidth: float, estimator: Estimator = "pooled", reference: str | None = None
) -> Tensor:
    """Return D_H = (1/M) sum_m log int p_m^M - log int prod_m p_m (paper Eq. 16) with an estimator of `holder_of_rows`.

    Each density uses the present rows of its modality; ids are ignored. Modalities without rows (for `debiased`, with
    fewer than two) are omitted and not counted in M. The result is 0 with zero gradient if fewer than two modalities
    remain, or if the modality that `reference` names is omitted.
    """
    least = 2 if estimator == "debiased" else 1
    kept = [m for m, count in enumerate(batch.present_MB.sum(1).tolist()) if count >= least]
    center = None if reference is None else batch.index(reference)
    if len(kept) < 2 or (center is not None and center not in kept):
        return batch.z_MBD.sum() * 0
    if estimator == "pooled":  # `plugin` uses the first set as the reference
        kept = [kept[m] for m in value_order([batch.z_MBD[m, batch.present_MB[m]] for m in kept])]
    items = [batch.present_MB[m].nonzero().flatten() for m in kept]
    rows = [batch.z_MBD[m, index] for m, index in zip(kept, items, strict=True)]
    return holder_of_rows(
        rows,
        items,
        bandwidth=bandwidth,
        estimator=estimator,
        reference=None if center is None else kept.index(center),
        layouts=None if batch.shard is None else [shard_layout(batch.present_MB[m], batch.shard) for m in kept],
    )


def holder_of_rows(
    rows: list[Tensor],
    items: list[Tensor],
    *,
    bandwidth: float,
    estimator: Estimator,
    reference: int | None = None,
    layouts: list[RowSelection] | None = None,
) -> Tensor:
    """Hölder divergence of M >= 2 sets of unit rows (N, D), which may differ in N.

    `plugin` is the resubstitution estimate (1/M) sum_m log mean_j p_m(z_j^m)^(M-1) - log mean_j prod_{m != r}
    p_m(z_j^r), with the reference r (the first set if None). `plugin_avg` takes the mean over r inside the last
    logarithm. `debiased` is `plugin_avg` (or `plugin`, if a reference is given), but the densities at a row exclude the
    rows of the same item. `pooled` evaluates the densities at the P rows x of all sets: (1/M) sum_m log sum_x p_m(x)^M
    - log sum_x prod_m p_m(x), which is nonnegative by Hölder's inequality for sums. `exact` computes the integrals in
    closed form as sums over all N^M tuples.
    """
    modalities = range(len(rows))
    if estimator == "exact":
        own = [_log_integral([z_ND] * len(rows), bandwidth) for z_ND in rows]
        return torch.stack(own).mean() - _log_integral(rows, bandwidth)

    def logp(r: int, m: int) -> Tensor:
        own_items = (items[r], items[m]) if estimator == "debiased" else None
        pair = None if layouts is None else (layouts[r], layouts[m])
        return log_densities(rows[r], rows[m], bandwidth=bandwidth, items=own_items, layouts=pair)

    if estimator == "pooled":
        logp_MP = torch.stack([torch.cat([logp(r, m) for r in modalities]) for m in modalities])
        return torch.logsumexp(len(rows) * logp_MP, 1).mean() - torch.logsumexp(logp_MP.sum(0), 0)
    power = len(rows) - 1
    own = [log_mean_exp(power * logp(m, m)) for m in modalities]
    if estimator == "plugin":
        centers = [0 if reference is None else reference]
    else:
        centers = list(modalities) if reference is None else [reference]
    cross = [log_mean_exp(torch.stack([logp(r, m) for m in modalities if m != r]).sum(0)) for r in centers]
    return torch.stack(own).mean() - log_mean_exp(torch.stack(cross))


def exact_sizes(counts: list[int]) -> list[int]:
    """Number of kernel values in each integral of the `exact` estimator."""
    return [math.prod(counts), *(count ** len(counts) for count in counts)]


def _log_integral(rows: list[Tensor], bandwidth: float) -> Tensor:
    """Return the log mean over all tuples (x_1..x_M) of exp(-S / (2 tau^2)), S = (1/M) sum_{m<n} |x_m - x_n|^2.

    For Gaussian kernels, the result is log int prod_m p_m over R^D up to the factor (2 pi tau^2)^(-(M-1)D/2) M^(-D/2),
    which is the same in all integrals of a divergence.
    """
    size = len(rows)
    exponent = rows[0].new_zeros(())
    for m in range(size):
        for n in range(m + 1, size):
            shape = [len(z_ND) if axis in (m, n) else 1 for axis, z_ND in enumerate(rows)]
            # |x - y|^2 / 2 = 1 - cos.
            exponent = exponent + (rows[m] @ rows[n].mT - 1).reshape(shape) / (size * bandwidth * bandwidth)
    return log_mean_exp(exponent.flatten())
