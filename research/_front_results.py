"""Results of the study `front` from its finished records: fronts, paired tests, correlations, and what was not run.

Shapes: `S` seeds or splits, `R` resamples, `T` trials, `F` metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from research._front_comparisons import (
    complete_trials,
    geometry_rows,
    kept_development_rows,
    kept_rows,
    mechanism_rows,
    regime_rows,
    test_rows,
)
from research._front_data import DATA
from research._front_default import choose_default
from research._front_measures import (
    METRICS,
    difference,
    hypervolume,
    non_dominated,
    scaled_points,
    with_interval,
)
from research._front_objectives import ENTRIES, RECIPES, trial_settings
from research._front_page import page
from research._front_plan import (
    CLOSED,
    PARTS,
    REGIME_ENTRIES,
    FrontPlan,
    trial_score,
)
from research._front_regimes import REGIMES, regimes_of
from research._records import Record
from research._results import rounded
from research.pages import html_page, markdown_page
from unialign.experiments import write_json
from unialign.io import describe_environment, replace_file
from unialign.metrics import holm_correction

__all__ = ["TITLE", "make_results", "progress_rows", "write_results"]

TITLE = "Whole fronts of objectives with equal tuning budgets"
# Of each cell, the lower quarter of a metric is outside the box of the hypervolume.
_BOX_QUANTILE = 0.25
Values = dict[str, tuple[Tensor, list[float]]]


def write_results(plan: FrontPlan, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = rounded(make_results(plan))
    write_json(folder / "results.json", results)
    sections = page(results)
    for section in sections:
        for figure in section.figures:
            replace_file(folder / "figures" / f"{figure.name}.svg", f"{figure.drawing}\n")
    replace_file(folder / "page.md", markdown_page(TITLE, sections))
    facts = [f"{entry['done']} trainings of the part {entry['part']}" for entry in _totals(results)]
    report = html_page(TITLE, kicker="study: front", facts=facts, sections=sections, reproduce=results["reproduce"])
    replace_file(folder / "report.html", report)
    return results


def make_results(plan: FrontPlan) -> dict[str, Any]:
    options = plan.options
    cells = [(data, recipe) for data in plan.data for recipe in options.recipes]
    tests = [test for data, recipe in cells for test in test_rows(plan, data, recipe)]
    kept = [one for data in plan.data for one in kept_rows(plan, data)]
    corrected = [test for test in tests if "p" in test]
    corrected += [test for one in kept for test in one["differences"]]
    for test, p in zip(corrected, holm_correction([test["p"] for test in corrected]), strict=True):
        test["p_holm"] = p
        test["verdict"] = "tie" if p >= 0.05 else "win" if test["mean"] > 0 else "lose"
    return {
        "schema": 1,
        "environment": describe_environment(),
        "reproduce": "python -m research front",
        "study": {
            "name": "front",
            "title": TITLE,
            "failed": {},
            "options": {
                "trials": options.trials,
                "splits": list(options.splits),
                "seeds": list(options.seeds),
                "epochs": options.epochs,
                "resamples": options.resamples,
            },
            "labels": {name: entry.label for name, entry in ENTRIES.items()} | {CLOSED: "Kernel GCCA"},
            "recipes": {name: recipe.title for name, recipe in RECIPES.items()},
            "data": {name: _described(plan, name) for name in options.data},
            "unavailable": plan.unavailable,
            "progress": [entry for part in PARTS for name in options.data for entry in progress_rows(plan, part, name)],
            "tests_in_family": len(corrected),
            "tuning": [found for cell in cells if (found := _tuning(plan, *cell))],
            "hypervolume": [found for cell in cells for found in _hypervolumes(plan, *cell)],
            "default": choose_default(plan),
            "test": tests,
            "mechanism": mechanism_rows(plan, cells),
            "geometry": [one for cell in cells for one in geometry_rows(plan, *cell)],
            "regimes": [one for cell in cells for one in regime_rows(plan, *cell)],
            "keep": kept,
            "keep_development": [one for data in plan.data for one in kept_development_rows(plan, data)],
        },
    }


def _described(plan: FrontPlan, name: str) -> dict[str, Any]:
    about: dict[str, Any] = {"title": DATA[name].title, "modalities": list(DATA[name].modalities)}
    if name in plan.missing:
        return about | {"missing": plan.missing[name]}
    return about | {
        "items": plan.items[name],
        "fingerprint": plan.fingerprints[name],
        "start": plan.start(name),
        "transfer": DATA[name].transfer,
    }


# --- what has been run ----------------------------------------------------------------------------------------------


def progress_rows(plan: FrontPlan, part: str, data: str) -> Iterator[dict[str, Any]]:
    """The number of planned trainings includes those of objectives that this version lacks; for `keep`, the most."""
    options = plan.options
    entries = len(options.entries)
    kept = len(options.keep_splits) + len(options.keep_seeds)
    planned = {
        "start": {"": 1 + len(options.splits)},
        "tuning": dict.fromkeys(options.recipes, entries * options.trials * len(options.splits)),
        "test": dict.fromkeys(options.recipes, entries * len(options.seeds)),
        "regimes": dict.fromkeys(options.recipes, _regime_trainings(plan, data)),
        "keep": {"": len(options.keep_entries) * 2 * options.keep_trials * kept},
    }[part]
    jobs = plan.jobs(part, data) if data in plan.data else []
    for recipe, number in planned.items():
        own = [job for job in jobs if not recipe or f"-{recipe}-" in job.file.name]
        done = sum(plan.record(job) is not None for job in own)
        yield {"part": part, "data": data, "recipe": recipe, "done": done, "planned": number}


def _regime_trainings(plan: FrontPlan, data: str) -> int:
    chosen = [name for name in regimes_of(data) if name in plan.options.regimes]
    named = sum(name in plan.options.entries for name in REGIME_ENTRIES)
    entries = sum(len(REGIMES[name].only) or named for name in chosen)
    return entries * (plan.options.regime_trials + len(plan.options.regime_splits))


def _totals(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    progress = results["study"]["progress"]
    return [{"part": p, "done": sum(one["done"] for one in progress if one["part"] == p)} for p in PARTS]


# --- fronts ---------------------------------------------------------------------------------------------------------


def _tuning(plan: FrontPlan, data: str, recipe: str) -> dict[str, Any] | None:
    complete = complete_trials(plan, data, recipe)
    if not complete:
        return None
    objectives = {}
    for entry, trials in complete.items():
        objectives[entry] = {
            "chosen": plan.chosen(data, recipe, entry),
            "trials": [
                {
                    "settings": trial_settings(entry, recipe, i),
                    "failed": sum(bool(record.failed) for record in records),
                    **{name: _mean(records, name) for name in METRICS if name in _defined(complete)},
                    "score": trial_score(list(records)),
                }
                for i, records in enumerate(trials)
            ],
        }
    return {"data": data, "recipe": recipe, "objectives": objectives, "closed": _closed_on_development(plan, data)}


def _closed_on_development(plan: FrontPlan, data: str) -> dict[str, float]:
    jobs = [plan.closed_job(data, k) for k in plan.options.splits]
    records = [record for job in jobs if job is not None and (record := plan.record(job)) is not None]
    complete = len(records) == len(plan.options.splits)
    return {name: _mean(records, name) for name in METRICS if complete and name in records[0].metrics}


def _mean(records: Sequence[Record], metric: str) -> float:
    if any(record.failed for record in records):
        return float("nan")
    return fmean(record.metrics[metric] for record in records)


def _defined(complete: Mapping[str, list[list[Record]]]) -> list[str]:
    known = [record for trials in complete.values() for records in trials for record in records if not record.failed]
    return [name for name in METRICS if known and all(name in record.metrics for record in known)]


def _hypervolumes(plan: FrontPlan, data: str, recipe: str) -> Iterator[dict[str, Any]]:
    complete = complete_trials(plan, data, recipe)
    names = _defined(complete)
    if len(complete) < 2 or not names:
        return
    splits = range(len(plan.options.splits))
    points = {e: np.array([[_row(r, names) for r in records] for records in trials]) for e, trials in complete.items()}
    pooled_SPF = np.concatenate(list(points.values())).swapaxes(0, 1)
    low_SF, high_SF = np.nanquantile(pooled_SPF, _BOX_QUANTILE, axis=1), np.nanmax(pooled_SPF, axis=1)
    volumes: Values = {}
    for entry, values_TSF in points.items():
        own = [hypervolume(scaled_points(values_TSF[:, s], low_SF[s], high_SF[s])) for s in splits]
        resampled = [_resampled_volumes(complete[entry], s, names, low_SF[s], high_SF[s]) for s in splits]
        # Centered on the estimate, since the best of noisy trials is better in a resample.
        values_SR = torch.stack([v_R - v_R.mean() + point for v_R, point in zip(resampled, own, strict=True)])
        volumes[entry] = values_SR, own
    means = {e: [[_mean(records, m) for m in names] for records in trials] for e, trials in complete.items()}
    flat = [(e, point) for e, trials in means.items() for point in trials if not np.isnan(point).any()]
    on_front = {i: flat[i][0] for i in non_dominated([point for _, point in flat])}
    for entry, found in volumes.items():
        volume = with_interval(*found)
        is_compared = "infonce" in volumes and entry != "infonce"
        yield {
            "data": data,
            "recipe": recipe,
            "objective": entry,
            "mean": volume["mean"],
            "low": max(volume["low"], 0.0),
            "high": min(volume["high"], 1.0),
            "difference": difference(found, volumes["infonce"]) if is_compared else None,
            "on_front": sum(owner == entry for owner in on_front.values()),
            "front": len(on_front),
        }


def _row(record: Record, names: Sequence[str]) -> list[float]:
    return [float("nan") if record.failed else record.metrics[name] for name in names]


def _resampled_volumes(
    trials: Sequence[Sequence[Record]], split: int, names: Sequence[str], low_F: Any, high_F: Any
) -> Tensor:
    own = [records[split] for records in trials if not records[split].failed]
    values_TFR = np.stack([np.stack([record.resampled[name].double().numpy() for name in names]) for record in own])
    found = [hypervolume(scaled_points(values_TFR[:, :, r], low_F, high_F)) for r in range(values_TFR.shape[2])]
    return torch.tensor(found, dtype=torch.float64)
