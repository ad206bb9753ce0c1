"""Compute a single score of a space on the validation split of a store."""

from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation._evaluate import evaluate
from unialign.evaluation._metrics import all_metrics
from unialign.evaluation._selection import SELECTION_METRICS, log_score, selection_metrics
from unialign.evaluation._store_evaluation import StoreItems
from unialign.space import Space

__all__ = ["check_selection_metric", "selection_score", "validation_metrics", "validation_rows"]

# Maximum number of validation items that are queries; the gallery always contains all items.
_MOST_QUERIES = 4096


def check_selection_metric(name: str, option: str) -> Literal["higher", "lower"]:
    """Return the better direction of a metric; raise ConfigError unless `name` is `auto` or a metric with such a
    direction.
    """
    if name == "auto":
        return "higher"
    metrics = all_metrics()
    better = "neither" if name not in metrics else metrics[name].better
    if better == "neither":
        known = ["auto", *(known for known, metric in metrics.items() if metric.better != "neither")]
        hint = suggestion(name, known, otherwise=f"choose {', '.join(known)}")
        raise ConfigError(f"{option} must be auto or a metric with a better direction, got {name!r}{hint}")
    return better


def validation_rows(store: EmbeddingStore, option: str) -> NDArray[np.int64]:
    rows_N = store.rows("val")
    if len(rows_N) < 2:
        raise ConfigError(
            f"{option} needs a validation split, but {store.name!r} has {len(rows_N)} validation items; assign "
            "items to split='val' when the store is written (`unialign.data.random_split` keeps groups together), "
            "or omit "
            f"{option}"
        )
    return rows_N


def selection_score(store: EmbeddingStore, space: Space, metric: str) -> float:
    """Return a metric on the validation split. The queries are at most 4,096 random items, the same in every call; the
    gallery contains all items. `auto` is the mean logarithm of R@1, joint R@1 and label mAP.
    """
    names = SELECTION_METRICS if metric == "auto" else (metric,)
    chosen = validation_metrics(store, space, names)
    if not chosen:
        needs = "labels of at least two classes" if metric in ("label_map", "v_measure", "nmi") else "more modalities"
        raise DataError(f"{metric!r} is undefined for the validation split of {store.name!r}, which lacks {needs}")
    return log_score(chosen, items=len(store.rows("val"))) if metric == "auto" else chosen[metric]


def validation_metrics(store: EmbeddingStore, space: Space, names: Collection[str]) -> dict[str, float]:
    """Measure the validation split as `selection_score` does; metrics that are undefined for its items are omitted."""
    items = StoreItems(store, space, "val")
    if len(items) > _MOST_QUERIES or not set(names) <= set(SELECTION_METRICS):
        found = dict(evaluate(store, space, split="val", sample=_MOST_QUERIES).metrics)
    else:
        places_N = np.arange(len(items))
        embeddings, present = items.embed(places_N)
        ids_N = torch.from_numpy(np.array(items.ids_N))
        found = selection_metrics(embeddings, present=present, ids=ids_N, labels=items.labels(places_N), names=names)
    return {name: found[name] for name in names if name in found}
