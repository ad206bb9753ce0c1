"""Compute retrieval and clustering metrics of a batch, by direction and as statistics.

Shapes: `N` items, `K` directions, `S` queries with a score, `J` clustered vectors.
"""

from collections import defaultdict
from itertools import permutations

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.evaluation._joint import JointQuery, JointScore, joint_retrieval
from unialign.evaluation._statistics import ClusterAgreement, ConstantStatistic, ItemMean, Statistic
from unialign.metrics import RetrievalResult, kmeans, retrieval

__all__ = [
    "JOINT_METRICS",
    "Directions",
    "direction_values",
    "item_scores",
    "joint_statistics",
    "label_map_statistic",
    "label_statistics",
    "pairwise_statistics",
]

Directions = dict[str, dict[str, float]]

# Joint queries have the same ranking by cosine and by centroid (see _joint.py), so only the centroid is computed.
JOINT_METRICS: tuple[tuple[JointScore, JointQuery, dict[str, str]], ...] = (
    ("cosine", "target", {"to_joint_recall@1/cosine": "recall@1"}),
    ("centroid", "others", {"joint_recall@1": "recall@1", "joint_recall@10": "recall@10"}),
    ("centroid", "target", {"to_joint_recall@1/centroid": "recall@1"}),
    ("volume", "others", {"joint_recall@1/volume": "recall@1"}),
    ("volume", "target", {"to_joint_recall@1/volume": "recall@1"}),
)


def pairwise_statistics(batch: Batch, ids_N: Tensor, k: tuple[int, ...]) -> tuple[Directions, dict[str, Statistic]]:
    directions: Directions = {}
    scores: dict[str, list[Tensor]] = defaultdict(list)
    for m, n in permutations(range(len(batch.names)), 2):
        found = _retrieve(batch, m, n, batch.present_MB[m], ids_N, k)
        if found is not None:
            directions[f"{batch.names[m]}->{batch.names[n]}"] = direction_values(found[1])
            for name in (*(f"recall@{cut}" for cut in k), "mrr", "ndcg", "map"):
                scores[name].append(item_scores(found, name, len(ids_N)))
    statistics = _item_means(scores)
    if directions:
        median = sum(values["median_rank"] for values in directions.values()) / len(directions)
        statistics["median_rank"] = ConstantStatistic(median)
    return directions, statistics


def joint_statistics(batch: Batch, ids_N: Tensor, k: tuple[int, ...]) -> tuple[Directions, dict[str, Statistic]]:
    """Return the metrics of joint retrieval by direction and as statistics; both are empty for two modalities."""
    directions: Directions = {}
    scores: dict[str, list[Tensor]] = defaultdict(list)
    for target, name in enumerate(batch.names if len(batch.names) > 2 else ()):
        others = "+".join(other for other in batch.names if other != name)
        for score, query, metrics in JOINT_METRICS:
            found = joint_retrieval(batch, target, query=query, score=score, ids_N=ids_N, k=k)
            if found is None:
                continue
            for metric, recall in metrics.items():
                scores[metric].append(item_scores(found, recall, len(ids_N)))
            if score == "centroid":
                direction = f"{name}->{others}" if query == "target" else f"{others}->{name}"
                directions[direction] = direction_values(found[1])
    return directions, _item_means(scores)


def label_statistics(batch: Batch, labels_N: Tensor, seed: int) -> dict[str, Statistic]:
    """Return label mAP, V-measure and NMI as statistics; empty for fewer than two classes."""
    label_map = label_map_statistic(batch, labels_N)
    if label_map is None:
        return {}
    vector, item = (batch.present_MB & (labels_N >= 0)).nonzero(as_tuple=True)
    classes = torch.unique(labels_N[item])
    clusters_J = kmeans(batch.z_MBD[vector, item], len(classes), seed=seed).labels
    agreement = ClusterAgreement(labels_N[item], clusters_J, item)
    return {"label_map": label_map, "v_measure": agreement, "nmi": agreement}


def label_map_statistic(batch: Batch, labels_N: Tensor) -> Statistic | None:
    known_N = labels_N >= 0
    # Unlabeled items stay in the gallery, each as a separate class.
    classes_N = torch.where(known_N, labels_N, -1 - torch.arange(len(labels_N)))
    pairs = permutations(range(len(batch.names)), 2)
    found = [_retrieve(batch, m, n, batch.present_MB[m] & known_N, classes_N, (1,)) for m, n in pairs]
    scores_KN = [item_scores(pair, "map", len(labels_N)) for pair in found if pair is not None]
    is_clustered_N = known_N & batch.present_MB.any(0)
    if not scores_KN or len(torch.unique(labels_N[is_clustered_N])) < 2:
        return None
    return ItemMean(torch.stack(scores_KN))


def _retrieve(
    batch: Batch, m: int, n: int, queries_N: Tensor, ids_N: Tensor, k: tuple[int, ...]
) -> tuple[Tensor, RetrievalResult] | None:
    """Return None if no query has a positive."""
    queries, gallery = queries_N.nonzero().flatten(), batch.present_MB[n].nonzero().flatten()
    query_ids, gallery_ids = ids_N[queries], ids_N[gallery]
    if not bool(torch.isin(query_ids, gallery_ids).any()):
        return None
    result = retrieval(
        batch.z_MBD[m, queries], batch.z_MBD[n, gallery], query_ids=query_ids, gallery_ids=gallery_ids, k=k
    )
    return queries[result.rows], result


def direction_values(result: RetrievalResult) -> dict[str, float]:
    return {
        **{f"recall@{cut}": value for cut, value in result.recall.items()},
        "median_rank": result.median_rank,
        "mrr": result.mrr,
        "ndcg": result.ndcg,
        "map": result.map,
        "queries": len(result.rows),
        "gallery": result.gallery_size,
        "chance_recall@1": result.chance[1],
    }


def item_scores(found: tuple[Tensor, RetrievalResult], metric: str, items: int) -> Tensor:
    """Return (N,) scores of a metric; NaN for items without a score."""
    rows_S, result = found
    scores_N = torch.full((items,), torch.nan, dtype=torch.float64)
    scores_N[rows_S] = result.scores(metric)
    return scores_N


def _item_means(scores: dict[str, list[Tensor]]) -> dict[str, Statistic]:
    return {name: ItemMean(torch.stack(rows_KN)) for name, rows_KN in scores.items()}
