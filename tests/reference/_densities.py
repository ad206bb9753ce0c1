"""Implement divergences of kernel densities without log-sum-exp, which limits the bandwidth to moderate values.

Shapes: `M` modalities (m, r); points x and rows z have shape (D,). tau is the bandwidth, and a `Row` is a pair (item,
vector).
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reference._rows import Rows, mean

__all__ = [
    "cauchy_schwarz",
    "effective_neighbors",
    "gaussian_mass",
    "gcsd",
    "holder",
    "holder_upper_bound",
    "median_bandwidth",
    "mmd2",
]

Row = tuple[int, Tensor]


def _kernel(x: Tensor, y: Tensor, tau: float) -> Tensor:
    return torch.exp(-((x - y) ** 2).sum() / (2 * tau**2))


def _density(x: Row, rows: Sequence[Row], tau: float, own: str) -> Tensor:
    """Return the kernel density at a point; `own="excluded"` excludes the item of the point."""
    return mean([_kernel(x[1], z, tau) for item, z in rows if own == "included" or item != x[0]])


def _product(factors: Sequence[Tensor]) -> Tensor:
    product = torch.ones((), dtype=torch.float64)
    for factor in factors:
        product = product * factor
    return product


def gaussian_mass(points: Sequence[Tensor], tau: float) -> Tensor:
    """Return int prod_m N(z; x_m, tau^2 I) dz up to a constant factor, exp(-sum_m |x_m - mean|^2 / (2 tau^2))."""
    middle = torch.stack(list(points)).mean(0)
    spread = torch.stack([((x - middle) ** 2).sum() for x in points]).sum()
    return torch.exp(-spread / (2 * tau**2))


def holder(rows: Rows, *, tau: float, estimator: str, reference: str | None = None) -> Tensor:
    """Return D_H = (1/M) sum_m log int p_m^M - log int prod_m p_m (Eq. 16) over the modalities with a density.

    A density requires at least one row (`debiased`: two). The result is 0 if fewer than two modalities have a density,
    or if the reference modality has none.
    """
    sets = {m: [(i, x) for i, x in enumerate(rows[m]) if x is not None] for m in rows}
    sets = {m: found for m, found in sets.items() if len(found) >= (2 if estimator == "debiased" else 1)}
    size = len(sets)
    if size < 2 or (reference is not None and reference not in sets):
        return torch.zeros((), dtype=torch.float64)
    if estimator == "exact":
        own = [
            mean([gaussian_mass([x for _, x in points], tau) for points in itertools.product(found, repeat=size)])
            for found in sets.values()
        ]
        cross = [mean([gaussian_mass([x for _, x in points], tau) for points in itertools.product(*sets.values())])]
    elif estimator == "pooled":
        points = [x for found in sets.values() for x in found]
        table = {m: [_density(x, found, tau, "included") for x in points] for m, found in sets.items()}
        own = [mean([p**size for p in values]) for values in table.values()]
        cross = [mean([_product([table[m][j] for m in sets]) for j in range(len(points))])]
    else:
        own_pairs = "excluded" if estimator == "debiased" else "included"
        own = [mean([_density(x, found, tau, own_pairs) ** (size - 1) for x in found]) for found in sets.values()]
        centers = list(sets) if reference is None else [reference]
        if estimator == "plugin" and reference is None:
            centers = centers[:1]
        cross = [
            mean([_product([_density(x, sets[m], tau, own_pairs) for m in sets if m != r]) for x in sets[r]])
            for r in centers
        ]
    return mean([torch.log(value) for value in own]) - torch.log(mean(cross))


def cauchy_schwarz(xs: Sequence[Tensor], ys: Sequence[Tensor], *, tau: float) -> Tensor:
    """Return D_CS = log mean K_xx + log mean K_yy - 2 log mean K_xy."""

    def average(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        return mean([_kernel(x, y, tau) for x in left for y in right])

    return torch.log(average(xs, xs)) + torch.log(average(ys, ys)) - 2 * torch.log(average(xs, ys))


def mmd2(xs: Sequence[Tensor], ys: Sequence[Tensor], *, tau: float, diagonals: str = "kept") -> Tensor:
    """Return MMD^2 = mean K_xx + mean K_yy - 2 mean K_xy, which is unbiased with `diagonals="dropped"`."""

    def own(rows: Sequence[Tensor]) -> Tensor:
        pairs = itertools.product(range(len(rows)), repeat=2)
        return mean([_kernel(rows[i], rows[j], tau) for i, j in pairs if diagonals == "kept" or i != j])

    return own(xs) + own(ys) - 2 * mean([_kernel(x, y, tau) for x in xs for y in ys])


def median_bandwidth(sets: Sequence[Sequence[Tensor]], *, floor: float = 0.01) -> float:
    """Return the median distance between distinct rows of the pooled sets, at least `floor`."""
    pooled = [x for rows in sets for x in rows]
    distances = sorted(float((x - y).norm()) for x, y in itertools.combinations(pooled, 2))
    count = len(distances)
    median = (distances[(count - 1) // 2] + distances[count // 2]) / 2 if distances else floor
    return max(median, floor)


def gcsd(rows: Rows, *, normalization: str = "none") -> Tensor:
    """Return -log [int prod_t p_t / prod_t (int p_t^M)^(1/M)] by `plugin_avg`, kernel exp(-d^2 / (0.15 median^2))."""
    median = median_bandwidth([[x for x in rows[m] if x is not None] for m in rows])
    divisor = {"none": 1, "modalities": len(rows), "modalities_minus_one": len(rows) - 1}[normalization]
    return holder(rows, tau=math.sqrt(0.15 * median**2 / 2), estimator="plugin_avg") / divisor


def effective_neighbors(rows: Rows, *, tau: float, own: str = "included") -> float:
    """Return exp(entropy of the kernel weights of a row), averaged over the rows and then over the modalities."""
    per_modality = []
    for found in ([(i, x) for i, x in enumerate(rows[m]) if x is not None] for m in rows):
        counts = []
        for i, x in found:
            kernels = [float(_kernel(x, y, tau)) for j, y in found if own == "included" or j != i]
            weights = [value / sum(kernels) for value in kernels]
            counts.append(math.exp(-sum(p * math.log(p) for p in weights if p > 0)))
        per_modality.append(sum(counts) / len(counts))
    return sum(per_modality) / len(per_modality)


def holder_upper_bound(rows: Rows, *, tau: float, anchor: str, uniformity: str = "outer_log") -> Tensor:
    """Return an upper bound of D_H.

    The bound is (1/M) sum_m log mean_j s_j^(M-1) + mean_i sum_{n != a} |z_i^a - z_i^n|^2 / (2 tau^2) + c.

    The mean over i covers the C complete items. Only their summands of mean_j prod_{n != a} p_n(z_j^a) are kept, which
    gives c = log(N_a / C) + sum_{n != a} log N_n, or (M - 1) log B if all rows are present. With "mean_log", (M-1)
    mean_j log s_j replaces the first logarithm. By Jensen's inequality it is smaller, so the result is not a bound.
    """
    size = len(rows)
    terms = []
    for m in rows:
        found = [(i, x) for i, x in enumerate(rows[m]) if x is not None]
        power = [_density(x, found, tau, "included") ** (size - 1) for x in found]
        terms.append(torch.log(mean(power)) if uniformity == "outer_log" else mean([torch.log(v) for v in power]))
    squares, counts = [], {m: len([x for x in rows[m] if x is not None]) for m in rows}
    for i, x in enumerate(rows[anchor]):
        others = [rows[n][i] for n in rows if n != anchor]
        if x is not None and all(y is not None for y in others):
            squares.append(torch.stack([((x - y) ** 2).sum() / (2 * tau**2) for y in others if y is not None]).sum())
    omitted = math.log(math.prod(counts.values()) / len(squares))
    return mean(terms) + mean(squares) + omitted
