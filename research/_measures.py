"""Measurements during training, which arms refer to by name, since arms are sent to worker processes."""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from research._plan import EvalHook
from unialign._checks import check_choice
from unialign.data import EmbeddingStore
from unialign.evaluation import ItemMean, Statistic
from unialign.experiments import embed_split
from unialign.geometry import (
    DivergenceWarning,
    cauchy_schwarz_divergence,
    conflict,
    divergence_profile,
    effective_rank,
    holder_upper_bound,
    mmd2,
    modality_gap_debiased,
)
from unialign.metrics import retrieval
from unialign.space import Space

__all__ = ["MEASURES", "View", "measure", "to_numbers"]


@dataclass(frozen=True)
class View:
    embeddings: dict[str, Tensor]
    present: dict[str, Tensor]
    ids: Tensor
    space: Space | None = None
    store: EmbeddingStore | None = None
    split: str = "test"
    study_folder: Path | None = None


def measure(space: Space, store: EmbeddingStore, hook: EvalHook, *, study_folder: Path | None = None) -> dict[str, Any]:
    check_choice("measure", hook.name, MEASURES)
    rows = store.rows(hook.split)
    embeddings = embed_split(space, store, hook.split)
    present = {name: torch.from_numpy(store.present(name)[rows].copy()) for name in embeddings}
    ids = torch.from_numpy(store.ids[rows].copy())
    view = View(embeddings, present, ids, space, store, hook.split, study_folder)
    return MEASURES[hook.name](view, **hook.arguments)


def to_numbers(measured: Mapping[str, Any], items: int) -> dict[str, float]:
    ones_1N = torch.ones(1, items, dtype=torch.float64)
    return {
        name: float(value) if isinstance(value, int | float) else float(value.evaluate(ones_1N))
        for name, value in measured.items()
    }


def measure_conflict(view: View, *, anchor: str, temperature: float = 0.07) -> dict[str, float | Statistic]:
    result = conflict(view.embeddings, anchor=anchor, temperature=temperature, present=view.present)
    c_KB = torch.stack(list(result.c.values()))
    found: dict[str, float | Statistic] = {
        "conflict/c_mean": float(c_KB.nanmean()),
        "conflict/c_min": float(torch.where(torch.isnan(c_KB), torch.inf, c_KB).min()),
    }
    for name, value in result.means().items():
        if name.startswith("c/"):
            continue  # Summaries of c replace its values per modality, since modalities differ between runs.
        per_item = getattr(result, name, None)
        resampled = isinstance(per_item, Tensor) and per_item.ndim == 1 and not bool(torch.isnan(per_item).all())
        found[f"conflict/{name}"] = ItemMean(per_item.double()[None]) if resampled else value  # type: ignore[union-attr]
    return found


def measure_modalities(view: View) -> dict[str, float | Statistic]:
    rows = {name: z_ND[view.present[name]] for name, z_ND in view.embeddings.items()}
    return {f"modality/{name}/effective_rank": float(effective_rank(z_ND)) for name, z_ND in rows.items()}


def measure_divergence(
    view: View, *, anchor: str, bandwidths: Sequence[float | Literal["median"]]
) -> dict[str, float | Statistic]:
    """Names have the form `divergence/<name>@<bandwidth>`, where the name is that of an estimator (`plugin` is computed
    at the anchor), `cauchy_schwarz` or the unbiased `mmd2` (means over pairs), `neighbors`, `neighbors_debiased`,
    `bound` (of the `plugin` value), or `mean_log`, which is the formula of the bound with the uniformity of the
    training loss and not a bound.
    """
    order = [anchor, *(name for name in view.embeddings if name != anchor)]
    embeddings = {name: view.embeddings[name] for name in order}
    present = {name: view.present[name] for name in order}
    pairs = list(itertools.combinations(order, 2))
    rows = [(embeddings[m][present[m]], embeddings[n][present[n]]) for m, n in pairs]
    found: dict[str, float | Statistic] = {}
    # Exclude the estimator `exact`, since 309 items with three modalities have 30 million tuples.
    profile = divergence_profile(embeddings, bandwidths=bandwidths, present=present, max_bytes=1)
    for row in profile.rows:
        tau = row.bandwidth
        numbers = {name: value for name, value in row.values.items() if value is not None}
        numbers |= {"neighbors": row.neighbors, "neighbors_debiased": row.neighbors_debiased}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DivergenceWarning)  # The results contain the number of neighbors.
            bound = partial(holder_upper_bound, embeddings, bandwidth=tau, anchor=anchor, present=present)
            numbers |= {"bound": float(bound()), "mean_log": float(bound(uniformity="mean_log"))}
            numbers["cauchy_schwarz"] = fmean(float(cauchy_schwarz_divergence(x, y, bandwidth=tau)) for x, y in rows)
            numbers["mmd2"] = fmean(float(mmd2(x, y, bandwidth=tau, unbiased=True)) for x, y in rows)
        found |= {f"divergence/{name}@{row.label}": value for name, value in numbers.items()}
        if row.label == "median":
            found["divergence/median_bandwidth"] = tau
    both = {(m, n): present[m] & present[n] for m, n in itertools.permutations(order, 2)}
    shared = [(m, n, at_N, view.ids[at_N]) for (m, n), at_N in both.items()]
    found["divergence/recall@1"] = fmean(
        retrieval(embeddings[m][at_N], embeddings[n][at_N], query_ids=ids_n, gallery_ids=ids_n).recall[1]
        for m, n, at_N, ids_n in shared
    )
    gaps = [modality_gap_debiased(embeddings[m][at_N], embeddings[n][at_N]) for m, n, at_N, _ in shared]
    found["divergence/gap_debiased"] = fmean(map(float, gaps))
    return found


def measure_generation(view: View, **arguments: Any) -> dict[str, float | Statistic]:
    # Import here to avoid importing diffusers for other studies.
    from research._image_scores import score_images

    assert view.space is not None
    assert view.store is not None
    assert view.study_folder is not None
    return score_images(view.space, view.store, view.split, view.study_folder, **arguments)


def measure_search_index(view: View, **arguments: Any) -> dict[str, float | Statistic]:
    from research._search_measures import measure_search

    return measure_search(view, **arguments)


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "conflict": measure_conflict,
    "divergence": measure_divergence,
    "generation": measure_generation,
    "modalities": measure_modalities,
    "search": measure_search_index,
}
