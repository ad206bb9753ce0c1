"""Evaluate embeddings of a set of items: all metrics, with the statistics for their intervals.

Shapes: `N` items, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_cutoffs, check_seed
from unialign.batch import Batch, as_tensors, make_batch, row_integers
from unialign.errors import DataError
from unialign.evaluation._evaluation import Evaluation
from unialign.evaluation._geometry_statistics import conflict_statistics, geometry_statistics
from unialign.evaluation._metrics import METRICS, all_metrics
from unialign.evaluation._retrieval_statistics import joint_statistics, label_statistics, pairwise_statistics
from unialign.evaluation._statistics import Statistic

__all__ = ["evaluate"]


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
    """Measure retrieval in every direction, joint queries, label mAP, clustering, gap, spread and conflict.

    Args:
        embeddings: modality -> (N, D) floating tensor or array; `evaluate` normalizes the rows.
        present: modality -> (N,) bool. A missing modality does not remove an item from the other directions; rows
            without a counterpart stay in the gallery as distractors.
        ids: (N,) integers; same-id items are positives of each other.
        labels: (N,) integers, -1 = unlabeled. None: no label mAP and no clustering.
        anchor: anchor of the conflict metrics. None: the mean over all modalities as anchor.
        k: cut-offs of recall; 1 and 10 are always included.
        seed: seed of k-means.

    Raises:
        ShapeError: as in `unialign.batch.make_batch`, or labels are not (N,) integers.
        NonFiniteError: as in `unialign.batch.make_batch`.
        ConfigError: unknown modality in `present` or `anchor`, or invalid `k` or `seed`.
        DataError: no two modalities share an item.
    """
    cutoffs = tuple(sorted({1, 10, *check_cutoffs(k)}))
    check_seed(seed)
    batch = make_batch(as_tensors(embeddings), present=present, ids=ids)
    items = batch.z_MBD.shape[1]
    labels_N = None if labels is None else row_integers(labels, "labels", items).cpu()
    ids_N = torch.arange(items) if batch.ids_B is None else batch.ids_B.cpu()
    batch = Batch(batch.names, batch.z_MBD.detach().cpu(), batch.present_MB.cpu(), ids_N)
    directions, statistics = pairwise_statistics(batch, ids_N, cutoffs)
    if not directions:
        raise DataError(
            f"no two of the modalities {', '.join(batch.names)} share an item, so there is nothing to retrieve"
        )
    joint_directions, joint = joint_statistics(batch, ids_N, cutoffs)
    directions |= joint_directions
    statistics |= joint
    if labels_N is not None:
        statistics |= label_statistics(batch, labels_N, seed)
    statistics |= geometry_statistics(batch) | conflict_statistics(batch, anchor) | _plugin_statistics(batch, labels_N)
    ones_1N = torch.ones(1, items, dtype=torch.float64)
    metrics = {name: float(statistic.evaluate(ones_1N)) for name, statistic in statistics.items()}
    return Evaluation(metrics, directions, statistics, items)


def _plugin_statistics(batch: Batch, labels_N: Tensor | None) -> dict[str, Statistic]:
    plugins = {name: metric.measure for name, metric in all_metrics().items() if name not in METRICS}
    found = {name: measure(batch, labels_N) for name, measure in plugins.items() if measure is not None}
    return {name: statistic for name, statistic in found.items() if statistic is not None}
