"""Count the similar negatives of a random training batch, from the features that `fit` would train on.

In a contrastive loss without `ids`, all other items of a batch are negatives. Some of them are copies of the query
(equal or nearly equal rows, see `_near_rows.py`); others are close, which means more similar than chance explains (see
`_close_cosine.py`). Cosines are those of standardized features, as in the weights `exp(-s max(0, cos))` of
`similarity_scale`.

Shapes: `k` measured rows, `j` rows that two modalities have, `W` dimension, `b` bins of the absolute cosine,
`R` resamples, `r` ranks, `p` pairs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._close_cosine import BINS, close_bin, histograms, surrogate_histogram
from unialign.diagnostics._estimate import Estimate, estimate
from unialign.diagnostics._near_rows import NearRows
from unialign.diagnostics._sampling import ItemSample
from unialign.diagnostics._scan import ModalityScan

# Maximum numbers of rows and of surrogate rows. Their 500,000 and 130,000 pairs are enough for the counts of a batch.
_MAX_ROWS, _SURROGATES = 1024, 512
# With fewer rows, the cosine from which rows are close is mostly noise.
_MIN_ROWS = 16
# Values of similarity_scale for which the weights are reported.
SCALES = (5.0, 10.0)
# Mean weights of close negatives at the ends of the range of scales to try. Beyond the second, a larger scale changes
# little for close negatives, but removes weight from unrelated ones.
_MOST_WEIGHT, _LEAST_WEIGHT = 1 / 2, 1 / 20
# Cosines above which negatives are counted, and quantiles of the largest cosine of a batch.
COSINES, QUANTILES = (0.5, 0.7, 0.9), (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class BatchNeighbors:
    """The negatives of a query in a random batch of `items` items, in one modality."""

    items: int  # items of the batch
    negatives: float  # expected number of them that have the modality, without the query
    copies: Estimate  # expected number of equal or nearly equal negatives with other ids
    close: Estimate  # expected number of other negatives with a cosine of at least `close_cosine`
    close_z: float  # z-value of the excess of `close` over its number by chance
    close_cosine: float  # NaN if chance explains all cosines
    mean_close_cosine: float  # NaN without close negatives
    above: dict[float, Estimate]  # cosine -> expected number of negatives with at least this cosine, copies included
    largest: dict[float, float]  # quantile over queries and batches -> largest cosine of a negative
    removed: dict[float, Estimate]  # scale -> fraction of the weight of all negatives that similarity_scale removes
    close_weight: dict[float, float]  # scale -> mean weight of close negatives
    scales: tuple[float, float] | None  # scales at which the mean weight of close negatives is 1/2 and 1/20
    shared: float  # fraction of the close negatives that are close in another modality; NaN if undefined
    shared_chance: float  # the same fraction of all negatives
    same_label: float  # fraction of the close negatives that have the label of the query; NaN without labels
    same_label_chance: float  # the same fraction of all negatives


@dataclass(frozen=True)
class _Cosines:
    """Cosines of the measured rows of a modality; pairs of one item or of copies are not compared."""

    rows_k: Tensor  # positions in the sample
    cosine_kk: Tensor
    other_kk: Tensor  # bool: different items that are not copies
    negative_kk: Tensor  # bool: different items, copies included
    copies_k: Tensor  # number of copies with other ids
    close_cosine: float
    close_kk: Tensor  # bool
    chance: float  # mean number of close rows by chance


def measure_batch_neighbors(
    sample: ItemSample,
    scans: Mapping[str, ModalityScan],
    near: Mapping[str, NearRows],
    *,
    items: int,
    batch_size: int,
    seed: int,
) -> dict[str, BatchNeighbors]:
    """Modalities with fewer than 16 distinct rows are left out."""
    found = {name: _cosines(sample, scans[name], near[name], name, seed=seed) for name in scans}
    measured = {name: cosines for name, cosines in found.items() if cosines is not None}
    batch = min(batch_size, items)
    return {
        name: _summary(
            sample,
            cosines,
            [other for key, other in measured.items() if key != name],
            batch=batch,
            negatives=(batch - 1) * min(1.0, float(scans[name].usable_N.sum()) / max(items, 1)),
        )
        for name, cosines in measured.items()
    }


def standardized(x_kW: Tensor) -> Tensor:
    """Unit rows of the standardized columns; constant columns become 0, as in `fit`."""
    x_kW = x_kW / x_kW.abs().amax().clamp(min=torch.finfo(x_kW.dtype).tiny)
    mean_W, std_W = x_kW.mean(0), x_kW.std(0, unbiased=False)
    varies_W = std_W > torch.maximum(1e-6 * std_W.max(), 1e-7 * mean_W.abs())
    x_kW = torch.where(varies_W, (x_kW - mean_W) / torch.where(varies_W, std_W, 1.0), 0.0)
    norm_k1 = torch.linalg.vector_norm(x_kW, dim=1, keepdim=True)
    return x_kW / torch.where(norm_k1 > 0, norm_k1, 1.0)


def _cosines(sample: ItemSample, scan: ModalityScan, near: NearRows, name: str, *, seed: int) -> _Cosines | None:
    rows = sample.usable[name].nonzero().flatten()
    if near.distinct < _MIN_ROWS:
        return None
    rows_k = rows[torch.from_numpy(np.linspace(0, len(rows) - 1, min(_MAX_ROWS, len(rows))).round().astype(np.int64))]
    x_kW = standardized(torch.from_numpy(scan.kept_kD[sample.kept_n[rows_k.numpy()]]))
    ids_k, code_k = torch.from_numpy(sample.ids_n[rows_k.numpy()]), torch.from_numpy(near.code_n[rows_k.numpy()])
    negative_kk = ids_k[:, None] != ids_k
    other_kk = negative_kk & (code_k[:, None] != code_k)
    cosine_kk = x_kW @ x_kW.mT
    observed_b, mirrored_b = histograms(cosine_kk[other_kk])
    surrogate_b = surrogate_histogram(x_kW, min(_SURROGATES, len(x_kW)), seed=seed)
    null_b = np.maximum(mirrored_b, surrogate_b * float(other_kk.sum()))
    first = close_bin(observed_b, null_b)
    return _Cosines(
        rows_k=rows_k,
        cosine_kk=cosine_kk,
        other_kk=other_kk,
        negative_kk=negative_kk,
        copies_k=(negative_kk.sum(1) - other_kk.sum(1)).double(),
        close_cosine=first / BINS if first < BINS else math.nan,
        close_kk=(cosine_kk >= first / BINS) & other_kk if first < BINS else torch.zeros_like(other_kk),
        chance=float(null_b[first:].sum()) / len(rows_k),
    )


def _summary(
    sample: ItemSample, cosines: _Cosines, others: list[_Cosines], *, batch: int, negatives: float
) -> BatchNeighbors:
    rows_k, cosine_kk, other_kk = cosines.rows_k, cosines.cosine_kk, cosines.other_kk
    pairs, weights_Rk = len(rows_k) - 1, sample.weights_Rn[:, rows_k]
    scale = negatives / pairs

    def rate(count_k: Tensor) -> Estimate:
        """Expected number in a batch, from the number for each row."""
        return _pair_mean(count_k.double() * scale, weights_Rk)

    negative_kk, close_kk = cosines.negative_kk, cosines.close_kk
    close = rate(close_kk.sum(1))
    deviation = float(close.values_R.std())
    shared, shared_chance = _shared(cosines, others)
    label, label_chance = _same_label(sample, rows_k, close_kk, other_kk)
    some = bool(close_kk.any())
    removed_k = {s: _removed(cosine_kk, negative_kk, s) for s in SCALES}
    size_k = negative_kk.sum(1).clamp(min=1)
    return BatchNeighbors(
        items=batch,
        negatives=negatives,
        copies=rate(cosines.copies_k),
        close=close,
        close_z=(close.mean - cosines.chance * scale) / deviation if deviation > 0 else 0.0,
        close_cosine=cosines.close_cosine,
        mean_close_cosine=float(cosine_kk[close_kk].mean()) if some else math.nan,
        above={c: rate(((cosine_kk >= c) & negative_kk).sum(1)) for c in COSINES},
        largest=largest_cosines(cosine_kk.masked_fill(~negative_kk, -1.0), negatives),
        removed={s: _pair_mean(removed_k[s] / size_k, weights_Rk) for s in SCALES},
        close_weight={s: float(torch.exp(-s * cosine_kk[close_kk]).mean()) if some else math.nan for s in SCALES},
        scales=scales_of(cosine_kk[close_kk]) if some else None,
        shared=shared,
        shared_chance=shared_chance,
        same_label=label,
        same_label_chance=label_chance,
    )


def _pair_mean(value_k: Tensor, weights_Rk: Tensor) -> Estimate:
    """Mean over rows of a sum over pairs. An item occurs in both places of a pair, so a resample deviates from the mean
    twice as much as a mean over rows (the linear part of a U-statistic, Hoeffding 1948).
    """
    mean = float(value_k.mean())
    return estimate(mean, 2 * (weights_Rk @ value_k) / weights_Rk.sum(1) - mean, minimum=0.0)


def _removed(cosine_kk: Tensor, negative_kk: Tensor, scale: float) -> Tensor:
    weight_kk = torch.exp(-scale * cosine_kk.clamp(min=0))
    return ((1 - weight_kk) * negative_kk).sum(1)


def scales_of(cosine_p: Tensor) -> tuple[float, float]:
    """Scales at which the mean of exp(-s c) over positive cosines is 1/2 and 1/20, by bisection."""

    def scale(weight: float) -> float:
        low, high = 0.0, -math.log(weight) / float(cosine_p.min())
        for _ in range(30):
            middle = (low + high) / 2
            more = float(torch.exp(-middle * cosine_p).mean()) > weight
            low, high = (middle, high) if more else (low, middle)
        return high

    return scale(_MOST_WEIGHT), scale(_LEAST_WEIGHT)


def largest_cosines(cosine_kk: Tensor, negatives: float) -> dict[float, float]:
    """Quantiles of the largest of `negatives` cosines that are drawn without replacement from a random row, without the
    diagonal.
    """
    candidates = len(cosine_kk) - 1
    drawn = min(max(round(negatives), 1), candidates)
    # P(the first r ranks are not drawn) = prod_{i < r} (candidates - drawn - i) / (candidates - i).
    rank_r = torch.arange(candidates, dtype=torch.float64)
    missed_r = ((candidates - drawn - rank_r).clamp(min=0) / (candidates - rank_r)).cumprod(0)
    missed_r = torch.cat([torch.ones(1, dtype=torch.float64), missed_r])
    ranks = min(int((missed_r > 1e-9).sum()), candidates)
    weight_r = missed_r[:ranks] - missed_r[1 : ranks + 1]
    without_kk = cosine_kk.clone().fill_diagonal_(-torch.inf)
    top_kr = without_kk.topk(ranks, dim=1).values
    value_p, order_p = top_kr.flatten().sort()
    total_p = weight_r.expand_as(top_kr).flatten()[order_p].cumsum(0)
    at = torch.searchsorted(total_p, torch.tensor(QUANTILES, dtype=torch.float64) * total_p[-1])
    return dict(zip(QUANTILES, value_p[at.clamp(max=len(value_p) - 1)].tolist(), strict=True))


def _shared(cosines: _Cosines, others: list[_Cosines]) -> tuple[float, float]:
    """Mean over the other modalities, on the items that both have."""
    found, chance = [], []
    for other in others:
        here_jj, there_jj, pairs_jj = cosines.close_kk, other.close_kk, other.other_kk
        if not torch.equal(cosines.rows_k, other.rows_k):
            _, at, other_at = np.intersect1d(cosines.rows_k.numpy(), other.rows_k.numpy(), return_indices=True)
            here_jj = here_jj[at][:, at]
            there_jj, pairs_jj = there_jj[other_at][:, other_at], pairs_jj[other_at][:, other_at]
        here_jj = here_jj & pairs_jj
        if bool(here_jj.any()):
            found.append(float(there_jj[here_jj].double().mean()))
            chance.append(float(there_jj.sum() / pairs_jj.sum()))
    return (float(np.mean(found)), float(np.mean(chance))) if found else (math.nan, math.nan)


def _same_label(sample: ItemSample, rows_k: Tensor, close_kk: Tensor, other_kk: Tensor) -> tuple[float, float]:
    if sample.labels_n is None:
        return math.nan, math.nan
    label_k: NDArray[np.int64] = sample.labels_n[rows_k.numpy()]
    label = torch.from_numpy(label_k)
    known_kk = (label >= 0)[:, None] & (label >= 0)
    same_kk = (label[:, None] == label) & known_kk
    near_kk, all_kk = close_kk & known_kk, other_kk & known_kk
    if not bool(near_kk.any()):
        return math.nan, math.nan
    return float(same_kk[near_kk].double().mean()), float(same_kk[all_kk].double().mean())
