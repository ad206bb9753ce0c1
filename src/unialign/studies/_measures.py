"""What may be measured during training, by name, since worker processes do the measuring.

A measure takes a `View` and the arguments of its `Look`, and returns name -> number, or -> `Statistic` where the number
is one of item weights, so that its interval at the end covers the items. Names must not be those of `METRICS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign.data import EmbeddingStore
from unialign.diagnostics import conflict
from unialign.evaluation import Statistic
from unialign.evaluation._statistics import ItemMean
from unialign.experiments import embed_split
from unialign.space import Space

__all__ = ["MEASURES", "View", "take", "values_of"]


@dataclass(frozen=True)
class View:
    """Unit rows of a split, modality -> (N, D), with (N,) presence and ids."""

    embeddings: dict[str, Tensor]
    present: dict[str, Tensor]
    ids: Tensor


def take(space: Space, store: EmbeddingStore, split: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a space on a split of the data."""
    check_choice("measure", name, MEASURES)
    rows = store.rows(split)
    embeddings = embed_split(space, store, split)
    present = {name: torch.from_numpy(store.present(name)[rows].copy()) for name in embeddings}
    return MEASURES[name](View(embeddings, present, torch.from_numpy(store.ids[rows].copy())), **arguments)


def values_of(measured: Mapping[str, Any], items: int) -> dict[str, float]:
    """What was measured as numbers."""
    ones_1N = torch.ones(1, items, dtype=torch.float64)
    return {
        name: float(value) if isinstance(value, int | float) else float(value.evaluate(ones_1N))
        for name, value in measured.items()
    }


def measure_conflict(view: View, *, anchor: str, temperature: float = 0.07) -> dict[str, float | Statistic]:
    """`unialign.diagnostics.conflict` at one anchor: per-item fields as means over items, bounds, c, correlations."""
    result = conflict(view.embeddings, anchor=anchor, temperature=temperature, present=view.present)
    c_KB = torch.stack(list(result.c.values()))
    found: dict[str, float | Statistic] = {
        "conflict/c_mean": float(c_KB.nanmean()),
        "conflict/c_min": float(torch.where(torch.isnan(c_KB), torch.inf, c_KB).min()),
    }
    for name, value in result.means().items():
        if name.startswith("c/"):
            continue  # their modalities differ between runs; the two numbers above say what the assumption needs
        per_item = getattr(result, name, None)
        resampled = isinstance(per_item, Tensor) and per_item.ndim == 1 and not bool(torch.isnan(per_item).all())
        found[f"conflict/{name}"] = ItemMean(per_item.double()[None]) if resampled else value  # type: ignore[union-attr]
    return found


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"conflict": measure_conflict}
