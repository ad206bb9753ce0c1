"""Measure a space on a set of items: every metric with what its interval needs.

Shapes: `M` modalities, `N` items, `D` width, `K` directions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_cutoffs, check_seed, check_text
from unialign.batch import Batch, as_tensors, make_batch, row_integers
from unialign.errors import ConfigError, DataError
from unialign.evaluation._joint import JOINT_SCORES, joint_retrieval
from unialign.evaluation._metrics import METRICS, metric_range
from unialign.evaluation._statistics import (
    ClusterAgreement,
    ConstantStatistic,
    DebiasedGap,
    ItemMean,
    Statistic,
    resample,
)
from unialign.geometry import conflict, effective_rank, modality_gap, true_pair_cosines
from unialign.metrics import (
    Interval,
    RetrievalResult,
    codes,
    kmeans,
    percentile_interval,
    retrieval,
)
from unialign.ops import log_kernel

__all__ = ["Evaluation", "evaluate"]

_PER_QUERY = ("mrr", "ndcg", "map")
_PRIMARY = tuple(name for name, metric in METRICS.items() if metric.primary)
# What a short look shows beside the headline metrics.
_SHOWN = ("recall@10", "median_rank", "true_pair_cosine", "effective_rank", "zeta_neg", "chi")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metrics: name -> value; `unialign.evaluation.METRICS` describes each. Metrics that need what was not given
            (labels, a second item) are left out.
        directions: `"a->b"` -> metrics of that direction; joint ones are `"a+b->c"` and `"c->a+b"` (centroid score).
        statistics: name -> the metric as a function of item weights.
        items: N.
    """

    metrics: dict[str, float]
    directions: dict[str, dict[str, float]]
    statistics: dict[str, Statistic]
    items: int

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self.metrics[name]:.4g}" for name in _PRIMARY if name in self.metrics)
        return f"Evaluation(items={self.items}, directions={len(self.directions)}, {shown})"

    def text(self) -> str:
        """The main metrics, a line each; `metrics` has all of them, `interval` says how far one may be off."""
        lines = []
        for name in METRICS:
            if name not in (*_PRIMARY, *_SHOWN) or name not in self.metrics:
                continue
            metric, value = METRICS[name], self.metrics[name]
            written = (
                f"{100 * value:.1f} %"
                if metric.unit == "percent"
                else f"{value:.3f}"
                if abs(value) < 10
                else f"{value:.1f}"
            )
            hint = " (lower is better)" if metric.better == "lower" else ""
            lines.append(f"{metric.label + hint:<32}{written}")
        return "\n".join(lines)

    def interval(
        self, metric: str, *, level: float = 0.95, resamples: int = 1000, seed: int = 0, groups: object = None
    ) -> Interval:
        """Bootstrap interval of a metric over items, or over `groups` of items (N,) that are drawn together.

        Queries are resampled against the fixed gallery. Median rank, raw gap, uniformity and effective rank have no
        item weights: their interval is the point itself. Intervals end where the metric does: at 0 and 1 for shares.
        """
        check_text("metric", metric)
        if metric not in self.statistics:
            raise ConfigError(f"unknown metric {metric!r}; this evaluation has {', '.join(self.statistics)}")
        estimate = self.metrics[metric]
        drawn = self.items if groups is None else codes(groups, "groups", rows=self.items)
        values = resample({metric: (self.statistics[metric], estimate)}, drawn, resamples=resamples, seed=seed)
        found = percentile_interval(values[metric], level, estimate=estimate)
        least, most = metric_range(metric)
        return Interval(estimate, min(max(found.low, least), most), min(max(found.high, least), most))


def evaluate(
    embeddings: Mapping[str, Any],
    *,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    anchor: str | None = None,
    k: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> Evaluation:
    """Retrieval in every ordered direction, joint queries, label mAP, clustering, gap, spread and conflict.

    Args:
        embeddings: modality -> (N, D) floating tensor or array; rows are normalised here.
        present: modality -> (N,) bool. A missing modality never removes an item from the other directions, and
            present vectors whose partner is missing stay in the gallery as distractors.
        ids: (N,) integers; items with equal ids answer each other.
        labels: (N,) integers, -1 for none; without them label mAP and clustering are left out.
        anchor: anchor of the conflict diagnostics; None averages over every modality as anchor.
        k: cut-offs of recall; 1 and 10 are always there.
        seed: of k-means.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`; ShapeError also for labels that
            are not (N,) integers, ConfigError for a bad `k`, `seed` or `anchor`.
        DataError: no two modalities share an item.
    """
    cutoffs = tuple(sorted({1, 10, *check_cutoffs(k)}))
    check_seed(seed)
    batch = make_batch(as_tensors(embeddings), present=present, ids=ids)
    items = batch.z_MBD.shape[1]
    labels_N = None if labels is None else row_integers(labels, "labels", items).cpu()
    ids_N = torch.arange(items) if batch.ids_B is None else batch.ids_B.cpu()
    batch = Batch(batch.names, batch.z_MBD.detach().cpu(), batch.present_MB.cpu(), ids_N)
    directions, statistics = _pairwise(batch, ids_N, cutoffs)
    if not directions:
        raise DataError(
            f"no two of the modalities {', '.join(batch.names)} share an item, so there is nothing to retrieve"
        )
    joint_directions, joint_statistics = _joint(batch, ids_N, cutoffs)
    directions |= joint_directions
    statistics |= joint_statistics
    if labels_N is not None:
        statistics |= _label_statistics(batch, labels_N, seed)
    statistics |= _geometry(batch) | _conflicts(batch, anchor)
    ones_1N = torch.ones(1, items, dtype=torch.float64)
    metrics = {name: float(statistic.evaluate(ones_1N)) for name, statistic in statistics.items()}
    return Evaluation(metrics, directions, statistics, items)


def _pairwise(
    batch: Batch, ids_N: Tensor, k: tuple[int, ...]
) -> tuple[dict[str, dict[str, float]], dict[str, Statistic]]:
    directions: dict[str, dict[str, float]] = {}
    scores: dict[str, list[Tensor]] = {}
    for m, source in enumerate(batch.names):
        for n, target in enumerate(batch.names):
            if m == n:
                continue
            queries, gallery = (batch.present_MB[i].nonzero().flatten() for i in (m, n))
            if not bool(torch.isin(ids_N[queries], ids_N[gallery]).any()):
                continue
            result = retrieval(
                batch.z_MBD[m, queries],
                batch.z_MBD[n, gallery],
                query_ids=ids_N[queries],
                gallery_ids=ids_N[gallery],
                k=k,
            )
            directions[f"{source}->{target}"] = _direction(result)
            for name in (*(f"recall@{cut}" for cut in k), *_PER_QUERY):
                scores.setdefault(name, []).append(_scatter(result, queries[result.rows], name, len(ids_N)))
    statistics: dict[str, Statistic] = {name: ItemMean(torch.stack(rows)) for name, rows in scores.items()}
    if directions:
        median = sum(values["median_rank"] for values in directions.values()) / len(directions)
        statistics["median_rank"] = ConstantStatistic(median)
    return directions, statistics


def _joint(batch: Batch, ids_N: Tensor, k: tuple[int, ...]) -> tuple[dict[str, dict[str, float]], dict[str, Statistic]]:
    if len(batch.names) < 3:
        return {}, {}
    directions: dict[str, dict[str, float]] = {}
    scores: dict[str, list[Tensor]] = {}
    for target, name in enumerate(batch.names):
        others = "+".join(other for other in batch.names if other != name)
        for score in JOINT_SCORES:
            if score != "cosine":  # ranks as the centroid does, see _joint.py
                found = joint_retrieval(batch, target, query="others", score=score, ids_N=ids_N, k=k)
                if found is not None:
                    suffix = "" if score == "centroid" else f"/{score}"
                    for cut in (1, 10) if score == "centroid" else (1,):
                        scores.setdefault(f"joint_recall@{cut}{suffix}", []).append(
                            _scatter(found[1], found[0], f"recall@{cut}", len(ids_N))
                        )
                    if score == "centroid":
                        directions[f"{others}->{name}"] = _direction(found[1])
            found = joint_retrieval(batch, target, query="target", score=score, ids_N=ids_N, k=k)
            if found is not None:
                scores.setdefault(f"to_joint_recall@1/{score}", []).append(
                    _scatter(found[1], found[0], "recall@1", len(ids_N))
                )
                if score == "centroid":
                    directions[f"{name}->{others}"] = _direction(found[1])
    return directions, {name: ItemMean(torch.stack(rows)) for name, rows in scores.items()}


def _direction(result: RetrievalResult) -> dict[str, float]:
    return {
        **{f"recall@{cut}": value for cut, value in result.recall.items()},
        "median_rank": result.median_rank,
        "mrr": result.mrr,
        "ndcg": result.ndcg,
        "map": result.map,
        "queries": len(result.rows),
        "gallery": result.gallery_size,
    }


def _scatter(result: RetrievalResult, rows_S: Tensor, metric: str, items: int) -> Tensor:
    scores_N = torch.full((items,), torch.nan, dtype=torch.float64)
    scores_N[rows_S] = result.scores(metric)
    return scores_N


def _label_statistics(batch: Batch, labels_N: Tensor, seed: int) -> dict[str, Statistic]:
    known_N = labels_N >= 0
    # Unlabelled items stay in the gallery, each a class of its own.
    classes_N = torch.where(known_N, labels_N, -1 - torch.arange(len(labels_N)))
    rows_KN = []
    for m in range(len(batch.names)):
        for n in range(len(batch.names)):
            queries = (batch.present_MB[m] & known_N).nonzero().flatten()
            gallery = batch.present_MB[n].nonzero().flatten()
            if m != n and bool(torch.isin(classes_N[queries], classes_N[gallery]).any()):
                result = retrieval(
                    batch.z_MBD[m, queries],
                    batch.z_MBD[n, gallery],
                    query_ids=classes_N[queries],
                    gallery_ids=classes_N[gallery],
                )
                rows_KN.append(_scatter(result, queries[result.rows], "map", len(labels_N)))
    vector, item = (batch.present_MB & known_N).nonzero(as_tuple=True)
    classes = torch.unique(labels_N[item])
    if not rows_KN or len(classes) < 2:
        return {}
    clusters_J = kmeans(batch.z_MBD[vector, item], len(classes), seed=seed).labels
    agreement = ClusterAgreement(labels_N[item], clusters_J, item)
    return {"label_map": ItemMean(torch.stack(rows_KN)), "v_measure": agreement, "nmi": agreement}


def _geometry(batch: Batch) -> dict[str, Statistic]:
    debiased, raw, cosines_KN = [], [], []
    for m in range(len(batch.names)):
        for n in range(m + 1, len(batch.names)):
            rows = (batch.present_MB[m] & batch.present_MB[n]).nonzero().flatten()
            if len(rows) < 2:
                continue
            x, y = batch.z_MBD[m, rows], batch.z_MBD[n, rows]
            debiased.append((rows, x, y))
            raw.append(float(modality_gap(x, y)))
            cosines_N = torch.full((batch.present_MB.shape[1],), torch.nan, dtype=torch.float64)
            cosines_N[rows] = true_pair_cosines(x, y)
            cosines_KN.append(cosines_N)
    statistics: dict[str, Statistic] = {}
    if debiased:
        statistics["modality_gap_debiased"] = DebiasedGap(debiased)
        statistics["modality_gap"] = ConstantStatistic(sum(raw) / len(raw))
        statistics["true_pair_cosine"] = ItemMean(torch.stack(cosines_KN))
    columns = [batch.z_MBD[m, batch.present_MB[m]] for m in range(len(batch.names)) if batch.present_MB[m].sum() >= 2]
    for name, measure in _SPREAD.items() if columns else ():
        statistics[name] = ConstantStatistic(sum(measure(x) for x in columns) / len(columns))
    return statistics


def _wang_isola(x_ND: Tensor) -> float:
    """log mean_{i != j} exp(-2 |x_i - x_j|^2) in tiles: O(N) memory."""
    x_ND = x_ND.double()
    total = -float(len(x_ND))  # the N self pairs, one each
    for tile_TD in torch.split(x_ND, 1024):
        total += float(log_kernel(tile_TD @ x_ND.mT, kernel="wang_isola", temperature=1.0).exp().sum())
    pairs = len(x_ND) * (len(x_ND) - 1)
    return float(torch.log(torch.tensor(max(total, 0.0) / pairs, dtype=torch.float64)))


_SPREAD: dict[str, Callable[[Tensor], float]] = {
    "uniformity": _wang_isola,
    "effective_rank": lambda x_ND: float(effective_rank(x_ND)),
}


def _conflicts(batch: Batch, anchor: str | None) -> dict[str, Statistic]:
    embeddings = {name: batch.z_MBD[m] for m, name in enumerate(batch.names)}
    present = {name: batch.present_MB[m] for m, name in enumerate(batch.names)}
    anchors = batch.names if anchor is None else (batch.names[batch.index(anchor)],)
    results = [conflict(embeddings, anchor=name, present=present) for name in anchors]
    statistics: dict[str, Statistic] = {}
    for name in ("zeta", "zeta_neg", "chi"):
        scores_KN = torch.stack([getattr(result, name).double() for result in results])
        if not bool(torch.isnan(scores_KN).all()):
            statistics[name] = ItemMean(scores_KN)
    return statistics
