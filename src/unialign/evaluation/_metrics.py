"""The metrics an evaluation reports: name, label, direction, unit, what each one says, and what it may be.

Order is table order.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["METRICS", "Metric", "metric_range"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown. `primary` metrics form the declared family of the verdict."""

    label: str
    description: str
    better: Literal["higher", "lower", "neither"] = "higher"
    unit: Literal["percent", "number"] = "percent"
    primary: bool = False


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "recall@1": Metric("R@1", "retrieval of unseen items, mean over all ordered pairs of modalities", primary=True),
        "recall@5": Metric("R@5", "as R@1, among the first 5"),
        "recall@10": Metric("R@10", "as R@1, among the first 10"),
        "median_rank": Metric("median rank", "of the true item, mean over ordered pairs", "lower", "number"),
        "mrr": Metric("MRR", "mean reciprocal rank, mean over ordered pairs", unit="number"),
        "ndcg": Metric("nDCG", "over the whole gallery, mean over ordered pairs", unit="number"),
        "map": Metric("mAP", "mean average precision, mean over ordered pairs", unit="number"),
        "joint_recall@1": Metric(
            "joint R@1", "all other modalities together find one (centroid; mean cosine ranks alike)", primary=True
        ),
        "joint_recall@10": Metric("joint R@10", "as joint R@1, among the first 10"),
        "joint_recall@1/volume": Metric("joint R@1, volume", "all others find one, scored by the volume they span"),
        "to_joint_recall@1/cosine": Metric("one to joint R@1, cosine", "one modality finds the tuple of the others"),
        "to_joint_recall@1/centroid": Metric("one to joint R@1, centroid", "the same, tuples scored by their centroid"),
        "to_joint_recall@1/volume": Metric("one to joint R@1, volume", "the same, tuples scored by volume"),
        "label_map": Metric(
            "label mAP", "items of the query's class rank first, mean over ordered pairs", primary=True
        ),
        "v_measure": Metric("V-measure", "k-means of all modalities' vectors against the classes", primary=True),
        "nmi": Metric("NMI", "of the same clusters; with the usual arithmetic mean it equals the V-measure"),
        "modality_gap_debiased": Metric(
            "debiased gap", "distance of the modality means less its sampling noise", "lower", "number", True
        ),
        "modality_gap": Metric("gap", "raw distance of the modality means; mostly sampling noise", "lower", "number"),
        "true_pair_cosine": Metric("true-pair cosine", "mean cosine of true pairs", "neither", "number"),
        "uniformity": Metric(
            "uniformity", "log mean exp(-2 |x - y|^2) inside a modality; lower is more spread", "neither", "number"
        ),
        "effective_rank": Metric("effective rank", "directions in use, mean over modalities", "neither", "number"),
        "zeta": Metric("zeta", "alignment-uniformity conflict of InfoNCE's forces at tau 0.07", "neither", "number"),
        "zeta_neg": Metric("zeta, negatives only", "the same without the own positive", "neither", "number"),
        "chi": Metric("chi", "disagreement of the positives", "neither", "number"),
    }
)

# Metrics that are no shares.
_BOUNDS = {
    "median_rank": (1.0, math.inf),
    "modality_gap_debiased": (0.0, 2.0),
    "modality_gap": (0.0, 2.0),
    "true_pair_cosine": (-1.0, 1.0),
    "uniformity": (-8.0, 0.0),
    "effective_rank": (1.0, math.inf),
    "zeta": (-1.0, 1.0),
    "zeta_neg": (-1.0, 1.0),
}


def metric_range(metric: str) -> tuple[float, float]:
    """The least and the most that a metric can be; its interval ends there too. Infinite where nothing is known."""
    return _BOUNDS.get(
        metric, (0.0, 1.0) if metric in METRICS or metric.startswith("recall@") else (-math.inf, math.inf)
    )
