"""Compute validation metrics for the choice of settings and weights.

Shapes: `N` items, `D` dimension.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from unialign.batch import as_tensors, make_batch
from unialign.evaluation._retrieval_statistics import joint_statistics, label_map_statistic, pairwise_statistics
from unialign.evaluation._statistics import Statistic

__all__ = ["SELECTION_METRICS", "log_score", "selection_metrics"]

SELECTION_METRICS = ("recall@1", "joint_recall@1", "label_map")


def selection_metrics(
    embeddings: Mapping[str, Any],
    *,
    present: Mapping[str, Any] | None = None,
    ids: Tensor | None = None,
    labels: Tensor | None = None,
    names: Collection[str] = SELECTION_METRICS,
) -> dict[str, float]:
    """Return the selection metrics of embeddings; omit metrics that are undefined for these items."""
    batch = make_batch(as_tensors(embeddings), present=present, ids=ids)
    items = batch.z_MBD.shape[1]
    ids_N = torch.arange(items) if batch.ids_B is None else batch.ids_B
    found: dict[str, Statistic] = {}
    if "recall@1" in names:
        found |= pairwise_statistics(batch, ids_N, (1,))[1]
    if "joint_recall@1" in names:
        found |= joint_statistics(batch, ids_N, (1, 10))[1]
    if "label_map" in names and labels is not None and (statistic := label_map_statistic(batch, labels)) is not None:
        found["label_map"] = statistic
    ones_1N = torch.ones(1, items, dtype=torch.float64)
    return {name: float(found[name].evaluate(ones_1N)) for name in SELECTION_METRICS if name in found}


def log_score(metrics: Mapping[str, float], *, items: int) -> float:
    """Return the mean logarithm of the metrics; values below 0.5 / items are replaced by 0.5 / items."""
    return sum(math.log(max(value, 0.5 / items)) for value in metrics.values()) / len(metrics)
