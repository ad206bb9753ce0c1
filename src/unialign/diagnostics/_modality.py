"""Compute statistics of one modality: norms, duplicates, and the spread of its unit rows over the sphere.

Shapes: `N` rows, `n` sampled usable rows, `u` usable rows, `D` dimension, `R` resamples, `t` rows of a tile.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics import _limits as limits
from unialign.diagnostics._duplicates import Duplicates, find_duplicates
from unialign.diagnostics._estimate import Estimate, estimate
from unialign.diagnostics._near_rows import NearRows, find_near_rows
from unialign.diagnostics._sampling import ItemSample
from unialign.diagnostics._scan import ModalityScan
from unialign.geometry import effective_rank
from unialign.ops import KernelFunction
from unialign.readers import Collection

# Number of queries used to compare dot products with cosines.
_MAX_QUERIES = 512
# Smallest maximum of non-negative integers that may be 8-bit codes; data with a smaller maximum are counts.
_MIN_LARGEST_CODE = 64


@dataclass(frozen=True)
class NormStats:
    mean: float
    deviation: float
    low: float  # 5 % quantile
    median: float
    high: float  # 95 % quantile
    least: float
    most: float
    long: int  # number of rows with a norm over ten times the median
    short: int  # number of rows with a norm below a tenth of the median
    first: tuple[int, ...]  # numbers of the first five rows counted in `long` or `short`


@dataclass(frozen=True)
class ModalityStats:
    dim: int
    dtype: str
    rows: int  # present rows
    absent: int
    usable: int  # number of present rows that have a direction
    sampled: int  # usable rows in the sample
    scan: ModalityScan
    duplicates: Duplicates
    norms: NormStats | None  # None if there are no usable rows
    mean_cosine: Estimate | None  # mean cosine of two different rows; None for fewer than two sampled rows
    effective_rank: float  # effective rank of the centered rows
    possible_rank: int  # largest effective rank that the sample allows
    uniformity: float  # log mean exp(-2 |x - y|^2)
    changed_top1: float  # fraction of queries with different first results by dot product and by cosine
    unsigned_codes: bool  # whether values are integers from 0 to 255, as from a quantizer with a zero point
    near: NearRows  # groups of equal or nearly equal rows of the sample
    distinct_sampled: int  # number of sampled rows, with nearly equal rows counted once
    # Mean cosine and effective rank. If over half of the rows are copies, use one copy of each, since copies do not
    # form a narrow cone.
    spread_cosine: Estimate | None
    spread_rank: float


def measure_modality(data: Collection, name: str, scan: ModalityScan, sample: ItemSample) -> ModalityStats:
    """Measure norms and duplicates on all rows, and everything else on the sample."""
    modality = data.modalities[name]
    near = find_near_rows(sample.z[name], sample.usable[name], sample.checksums[name], sample.ids_n)
    distinct_n = torch.from_numpy(near.code_n == np.arange(len(near.code_n))) & sample.usable[name]
    z_nD = sample.z[name][sample.usable[name]]
    rows, several = int(modality.present_N.sum()), len(z_nD) >= 2
    mean_cosine = _mean_cosine(z_nD, sample.weights_Rn[:, sample.usable[name]]) if several else None
    rank = float(effective_rank(z_nD)) if several else math.nan
    spread_cosine, spread_rank = mean_cosine, rank
    if near.has_few_distinct and near.distinct >= 2:
        spread_cosine = _mean_cosine(sample.z[name][distinct_n], sample.weights_Rn[:, distinct_n])
        spread_rank = float(effective_rank(sample.z[name][distinct_n]))
    return ModalityStats(
        dim=modality.rows.shape[1],
        dtype=modality.rows.dtype if modality.rows.dtype == "bfloat16" else np.dtype(modality.rows.dtype).name,
        rows=rows,
        absent=data.items - rows,
        usable=int(scan.usable_N.sum()),
        sampled=len(z_nD),
        scan=scan,
        duplicates=find_duplicates(scan.usable_N, scan.checksums_N, modality.rows, data.ids_N),
        norms=_norms(scan),
        mean_cosine=mean_cosine,
        effective_rank=rank,
        possible_rank=min(modality.rows.shape[1], (near.distinct if near.has_few_distinct else len(z_nD)) - 1),
        uniformity=_uniformity(z_nD) if several else math.nan,
        changed_top1=_changed_top1(sample, name, scan),
        unsigned_codes=_holds_codes(scan.kept_kD[sample.kept_n][sample.usable[name].numpy()]),
        near=near,
        distinct_sampled=near.distinct,
        spread_cosine=spread_cosine,
        spread_rank=spread_rank,
    )


def _holds_codes(raw_nD: NDArray[np.float64]) -> bool:
    """Return whether the values may be unsigned 8-bit codes: integers from 0 to a large maximum of at most 255."""
    plain = len(raw_nD) > 0 and raw_nD.min() >= 0 and _MIN_LARGEST_CODE <= raw_nD.max() <= 255
    return bool(plain and (raw_nD == np.floor(raw_nD)).all())


def _norms(scan: ModalityScan) -> NormStats | None:
    row_u = np.flatnonzero(scan.usable_N)
    if not len(row_u):
        return None
    norm_u = scan.norms_N[row_u].astype(np.float64)
    # Scale by a power of two, which is exact and keeps squares of norms near 1e200 finite.
    power = int(np.frexp(norm_u.max())[1])
    scaled_u = np.ldexp(norm_u, -power)
    low, median, high = np.quantile(norm_u, [0.05, 0.5, 0.95])
    long_u, short_u = norm_u > limits.OUTLIER * median, norm_u < median / limits.OUTLIER
    return NormStats(
        mean=float(np.ldexp(scaled_u.mean(), power)),
        deviation=float(np.ldexp(scaled_u.std(), power)),
        low=float(low),
        median=float(median),
        high=float(high),
        least=float(norm_u.min()),
        most=float(norm_u.max()),
        long=int(long_u.sum()),
        short=int(short_u.sum()),
        first=tuple(row_u[long_u | short_u][:5].tolist()),
    )


def _mean_cosine(z_nD: Tensor, weights_Rn: Tensor) -> Estimate:
    """Estimate mean_{i != j} <z_i, z_j> = (|sum z|^2 - n) / (n (n - 1))."""

    def mean(weights_Kn: Tensor) -> Tensor:
        squares_K, sum_K = weights_Kn.square().sum(1), weights_Kn.sum(1)
        return ((weights_Kn @ z_nD).square().sum(1) - squares_K) / (sum_K.square() - squares_K)

    whole = float(mean(torch.ones(1, len(z_nD), dtype=torch.float64)))
    return estimate(whole, mean(weights_Rn), minimum=-1.0, maximum=1.0)


def _uniformity(z_nD: Tensor) -> float:
    """Return log mean_{i != j} exp(-2 |z_i - z_j|^2) (Wang & Isola 2020)."""
    total = -float(len(z_nD))  # subtract the n self-pairs, each of value 1
    for tile_tD in torch.split(z_nD, 1024):
        total += float(KernelFunction("wang_isola").log(tile_tD @ z_nD.mT).exp().sum())
    return math.log(max(total, 1e-300) / (len(z_nD) * (len(z_nD) - 1)))


def _changed_top1(sample: ItemSample, name: str, scan: ModalityScan) -> float:
    """Return the fraction of queries with different first results by dot product and by cosine."""
    others = [m for m in sample.z if m != name and sample.z[m].shape[1] == sample.z[name].shape[1]]
    query = others[0] if others else name
    rows = sample.common(query, name)[:_MAX_QUERIES]
    if len(rows) < 2:
        return 0.0
    cosine_nn = sample.z[query][rows] @ sample.z[name][rows].mT
    if query == name:
        cosine_nn.fill_diagonal_(-torch.inf)
    norm_n = torch.from_numpy(scan.norms_N[sample.rows_n[rows.numpy()]].astype(np.float64))
    return float((cosine_nn.argmax(1) != (cosine_nn * norm_n).argmax(1)).double().mean())
