"""Define the metrics of an evaluation in table order, each with a label, description, direction, unit and range."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from unialign import registry
from unialign._checks import warn_skipped
from unialign.errors import ConfigError

__all__ = ["METRICS", "Metric", "all_metrics", "metric_range"]


if TYPE_CHECKING:
    from torch import Tensor

    from unialign.batch import Batch
    from unialign.evaluation._statistics import Statistic


@dataclass(frozen=True)
class Metric:
    """Description of a metric and, for a plug-in metric, the function that computes it.

    Add a metric with an entry point `unialign.metrics` or `unialign.registry.register("metrics", name, Metric(...))`.
    Every evaluation, comparison and report then includes the metric, but it does not affect verdicts.

    Attributes:
        better: direction of the paired tests; `neither` excludes the metric from them.
        primary: whether the verdict tests the metric; False for plug-ins.
        range: bounds to which intervals are clipped; None: [0, 1] for percentages, otherwise unbounded.
        measure: function that computes a plug-in metric from a batch of unit rows with ids, and from labels (N,) or
            None. The function returns a `Statistic`, or None if the metric is undefined. None for built-in metrics.
    """

    label: str
    description: str
    better: Literal["higher", "lower", "neither"] = "higher"
    unit: Literal["percent", "number"] = "percent"
    primary: bool = False
    range: tuple[float, float] | None = None
    measure: "Callable[[Batch, Tensor | None], Statistic | None] | None" = None


_number = partial(Metric, unit="number")
_untested = partial(Metric, unit="number", better="neither")

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "recall@1": Metric(
            "R@1",
            "fraction of queries whose true item ranks first, mean over all ordered pairs of modalities",
            primary=True,
        ),
        "recall@5": Metric("R@5", "fraction of queries whose true item is among the first 5"),
        "recall@10": Metric("R@10", "fraction of queries whose true item is among the first 10"),
        "median_rank": _number(
            "median rank",
            "median rank of the true item, mean over ordered pairs",
            better="lower",
            range=(1.0, math.inf),
        ),
        "mrr": _number("MRR", "mean reciprocal rank, mean over ordered pairs"),
        "ndcg": _number("nDCG", "nDCG over the whole gallery, mean over ordered pairs"),
        "map": _number(
            "mAP", "mean average precision, mean over ordered pairs; the MRR if each query has one true item"
        ),
        "joint_recall@1": Metric(
            "joint R@1", "R@1 with the centroid of all other modalities as the query", primary=True
        ),
        "joint_recall@10": Metric("joint R@10", "R@10 with the centroid of all other modalities as the query"),
        "joint_recall@1/volume": Metric(
            "joint R@1, volume", "R@1 with all other modalities as the query, scored by volume"
        ),
        "to_joint_recall@1/cosine": Metric("one to joint R@1, cosine", "R@1 of tuples, scored by mean cosine"),
        "to_joint_recall@1/centroid": Metric("one to joint R@1, centroid", "R@1 of tuples, scored by their centroid"),
        "to_joint_recall@1/volume": Metric("one to joint R@1, volume", "R@1 of tuples, scored by volume"),
        "label_map": Metric(
            "label mAP",
            "mean average precision of the items of the query's class, mean over ordered pairs",
            primary=True,
        ),
        "v_measure": Metric(
            "V-measure", "agreement of k-means clusters of all embeddings with the classes", primary=True
        ),
        "nmi": Metric("NMI", "NMI of the same clusters with the arithmetic mean, which equals the V-measure"),
        "modality_gap_debiased": _number(
            "debiased gap",
            "distance of the modality means, corrected for sampling noise",
            better="lower",
            primary=True,
            range=(0.0, 2.0),
        ),
        "modality_gap": _number(
            "gap", "raw distance of the modality means; mostly sampling noise", better="lower", range=(0.0, 2.0)
        ),
        "true_pair_cosine": _untested("true-pair cosine", "mean cosine of true pairs", range=(-1.0, 1.0)),
        "uniformity": _untested(
            "uniformity", "log mean exp(-2 |x - y|^2) within modalities; lower means more uniform", range=(-8.0, 0.0)
        ),
        "effective_rank": _untested(
            "effective rank", "number of directions in use, mean over modalities", range=(1.0, math.inf)
        ),
        "zeta": _untested(
            "zeta", "conflict of InfoNCE's alignment and uniformity forces at temperature 0.07", range=(-1.0, 1.0)
        ),
        "zeta_neg": _untested("zeta, negatives only", "zeta without the positive", range=(-1.0, 1.0)),
        "chi": _untested("chi", "disagreement of the positives"),
    }
)


def all_metrics() -> dict[str, Metric]:
    """Skip unusable metrics of other packages with a warning."""
    metrics = dict(METRICS)
    for name in registry.names("metrics"):
        try:
            metrics[name] = _load_plug_in(name)
        except ConfigError as error:
            # A broken plug-in must not abort runs that do not use it.
            if ("metrics", name) in registry.registered():
                raise
            warn_skipped(str(error))
    return metrics


def _load_plug_in(name: str) -> Metric:
    metric = registry.load("metrics", name)
    if not isinstance(metric, Metric) or metric.measure is None or metric.primary:
        raise ConfigError(f"metric {name!r} must be a unialign.evaluation.Metric with measure= and primary=False")
    if name in METRICS:
        raise ConfigError(f"metric {name!r} has the name of a built-in metric; rename it")
    return metric


def metric_range(name: str) -> tuple[float, float]:
    """Return the smallest and largest value of a metric; the values are infinite if unbounded or unknown."""
    metric = all_metrics().get(name)
    if metric is None:
        return (0.0, 1.0) if name.startswith("recall@") else (-math.inf, math.inf)
    if metric.range is not None:
        return metric.range
    return (0.0, 1.0) if metric.unit == "percent" or name in METRICS else (-math.inf, math.inf)
