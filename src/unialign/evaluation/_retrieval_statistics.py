"""Compute retrieval and clustering of a batch, as directions and statistics.

Shapes: `N` items, `K` directions, `S` queries with a score, `J` clustered vectors.
"""

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.evaluation._joint import JOINT_SCORES, joint_retrieval
from unialign.evaluation._statistics import ClusterAgreement, ConstantStatistic, ItemMean, Statistic
from unialign.metrics import RetrievalResult, kmeans, retrieval

__all__ = ["joint_statistics", "label_statistics", "pairwise_statistics"]

_PER_QUERY = ("mrr", "ndcg", "map")


def pairwise_statistics(
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


def joint_statistics(
    batch: Batch, ids_N: Tensor, k: tuple[int, ...]
) -> tuple[dict[str, dict[str, float]], dict[str, Statistic]]:
    if len(batch.names) < 3:
        return {}, {}
    directions: dict[str, dict[str, float]] = {}
    scores: dict[str, list[Tensor]] = {}
    for target, name in enumerate(batch.names):
        others = "+".join(other for other in batch.names if other != name)
        for score in JOINT_SCORES:
            if score != "cosine":  # same ranking as by centroid, see _joint.py
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


def label_statistics(batch: Batch, labels_N: Tensor, seed: int) -> dict[str, Statistic]:
    known_N = labels_N >= 0
    # Unlabeled items stay in the gallery, each as its own class.
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
