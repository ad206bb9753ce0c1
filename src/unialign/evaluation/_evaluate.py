"""Compute all metrics of the embeddings of a set of items, and the statistics from which intervals are computed.

Shapes: `N` items, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_cutoffs, check_integer, check_seed
from unialign.batch import Batch, as_tensors, make_batch, row_integers
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation._evaluation import Evaluation, map_rows
from unialign.evaluation._geometry_statistics import conflict_statistics, geometry_statistics
from unialign.evaluation._item_features import store_of_items
from unialign.evaluation._metrics import METRICS, all_metrics
from unialign.evaluation._retrieval_statistics import (
    Directions,
    joint_statistics,
    label_statistics,
    pairwise_statistics,
)
from unialign.evaluation._statistics import Statistic
from unialign.evaluation._store_evaluation import StoreItems, sampled_retrieval
from unialign.items import Items
from unialign.space import Space

__all__ = ["evaluate", "sampled_places"]


def evaluate(
    embeddings: Mapping[str, Any] | EmbeddingStore | Items,
    space: Space | None = None,
    *,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    anchor: str | None = None,
    k: Sequence[int] = (1, 5, 10),
    seed: int = 0,
    split: str = "test",
    sample: int | None = None,
    embedding: EmbedConfig | None = None,
) -> Evaluation:
    """Measure retrieval in every direction, joint queries, label mAP, clustering, gap, spread and conflict.

    Use `sample=n` to evaluate a store of any size with bounded memory: n random items are the queries, and all items of
    the split are the gallery, which is embedded and ranked in blocks. Recall, MRR, nDCG and mAP are then estimates for
    the whole split, and `Evaluation.sampling_interval` returns the uncertainty due to sampling. Label mAP, clustering,
    gap, spread and conflict are measured on the sampled items only.

    Args:
        embeddings: modality -> (N, D) floating-point tensor or array, whose rows are normalized. Alternatively, a store
            of embeddings or, with `space`, of features; its presence masks, ids and labels are used. Or, with `space`,
            an item table: the encoders of the space embed the media of the split (all items, if the table has no split)
            into a temporary folder. To keep the features, pass the store of `unialign.embed` instead.
        space: space that embeds the features of a store, or the media of items.
        present: modality -> (N,) bool. A missing modality does not remove an item from the other directions; rows
            without a counterpart stay in the gallery as distractors.
        ids: (N,) integers; same-id items are positives of each other.
        labels: (N,) integers; -1 marks unlabeled items. None: label mAP and clustering are not measured.
        anchor: anchor of the conflict metrics. None: the mean over all modalities as anchors.
        k: cut-offs of recall; 1 and 10 are always included.
        seed: seed of k-means and of the sample.
        split: split of the store or items: "train", "val" or "test".
        sample: number n of random items, at least 2. If `sample` is None or at least N, all items are used, with all
            embeddings in memory.
        embedding: settings for embedding items. None: those of `EmbedConfig()`.

    Raises:
        ShapeError: as in `unialign.batch.make_batch`, or labels are not (N,) integers.
        NonFiniteError: as in `unialign.batch.make_batch`.
        ConfigError: a modality in `present` or `anchor` is unknown, an option is invalid, `space` or `sample` is given
            without a store or items, `present`, `ids` or `labels` is given together with them, `embedding` is given
            without items, or the space has no encoder of a modality of the items.
        DataError: no two modalities share an item, or the split has fewer than two items.
    """
    cutoffs = tuple(sorted({1, 10, *check_cutoffs(k)}))
    check_seed(seed)
    if isinstance(embeddings, Items):
        if present is not None or ids is not None or labels is not None:
            raise ConfigError("items contain presence, ids and labels; omit `present`, `ids` and `labels`")
        if space is None:
            raise ConfigError(
                "an item table requires `space`, whose encoders embed the media; pass `space`, or pass a store"
            )
        with store_of_items(embeddings, space, split=split, embedding=embedding) as store:
            return evaluate(store, space, anchor=anchor, k=k, seed=seed, split=split, sample=sample)
    if embedding is not None:
        raise ConfigError("`embedding` contains settings for embedding items; pass items, or omit `embedding`")
    if isinstance(embeddings, EmbeddingStore):
        if present is not None or ids is not None or labels is not None:
            raise ConfigError("a store contains presence, ids and labels; omit `present`, `ids` and `labels`")
        return _evaluate_store(StoreItems(embeddings, space, split), cutoffs, anchor=anchor, seed=seed, sample=sample)
    if space is not None or sample is not None:
        raise ConfigError("`space` and `sample` require an EmbeddingStore; give a store, or omit them")
    batch = make_batch(as_tensors(embeddings), present=present, ids=ids)
    items = batch.z_MBD.shape[1]
    labels_N = None if labels is None else row_integers(labels, "labels", items).cpu()
    ids_N = torch.arange(items) if batch.ids_B is None else batch.ids_B.cpu()
    batch = Batch(batch.names, batch.z_MBD.detach().cpu(), batch.present_MB.cpu(), ids_N)
    directions, statistics = pairwise_statistics(batch, ids_N, cutoffs)
    _check_retrieval(directions, batch)
    joint_directions, joint = joint_statistics(batch, ids_N, cutoffs)
    statistics |= joint | _other_statistics(batch, labels_N, anchor=anchor, seed=seed)
    return _evaluation(batch, directions | joint_directions, statistics)


def _evaluate_store(
    items: StoreItems, k: tuple[int, ...], *, anchor: str | None, seed: int, sample: int | None
) -> Evaluation:
    if sample is not None:
        check_integer("sample", sample, low=2)
    total = len(items)
    if sample is None or sample >= total:
        places_N = np.arange(total)
        embeddings, present = items.embed(places_N)
        ids_N, labels_N = torch.from_numpy(np.array(items.ids_N)), items.labels(places_N)
        return evaluate(embeddings, present=present, ids=ids_N, labels=labels_N, anchor=anchor, k=k, seed=seed)
    places_n = sampled_places(total, sample, seed)
    drawn = items.batch(places_n)
    batch = Batch(drawn.names, drawn.z_MBD, drawn.present_MB, torch.from_numpy(np.array(items.ids_N[places_n])))
    directions, statistics = sampled_retrieval(items, batch, places_n, k)
    _check_retrieval(directions, batch)
    statistics |= _other_statistics(batch, items.labels(places_n), anchor=anchor, seed=seed)
    return _evaluation(batch, directions, statistics, places_n=places_n, population=total)


def sampled_places(total: int, sample: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the ascending positions of the items that `evaluate` samples from `total` items."""
    return np.sort(np.random.default_rng(seed).choice(total, sample, replace=False, shuffle=False))


def _check_retrieval(directions: Directions, batch: Batch) -> None:
    if not directions:
        raise DataError(
            f"no two of the modalities {', '.join(batch.names)} share an item, so retrieval cannot be measured"
        )


def _other_statistics(batch: Batch, labels_N: Tensor | None, *, anchor: str | None, seed: int) -> dict[str, Statistic]:
    labeled = {} if labels_N is None else label_statistics(batch, labels_N, seed)
    geometry = geometry_statistics(batch) | conflict_statistics(batch, anchor)
    return labeled | geometry | _plugin_statistics(batch, labels_N)


def _evaluation(
    batch: Batch,
    directions: Directions,
    statistics: dict[str, Statistic],
    *,
    places_n: NDArray[np.int64] | None = None,
    population: int | None = None,
) -> Evaluation:
    items = batch.z_MBD.shape[1]
    ones_1N = torch.ones(1, items, dtype=torch.float64)
    metrics = {name: float(statistic.evaluate(ones_1N)) for name, statistic in statistics.items()}
    rows_N = np.arange(items) if places_n is None else places_n
    return Evaluation(metrics, directions, statistics, items, population, map_rows(batch, rows_N))


def _plugin_statistics(batch: Batch, labels_N: Tensor | None) -> dict[str, Statistic]:
    plugins = {name: metric.measure for name, metric in all_metrics().items() if name not in METRICS}
    found = {name: measure(batch, labels_N) for name, measure in plugins.items() if measure is not None}
    return {name: statistic for name, statistic in found.items() if statistic is not None}
