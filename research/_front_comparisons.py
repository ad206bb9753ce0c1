"""Rows of the results of the study `front`: paired tests, correlations, regimes, and training that keeps its start.

Shapes: `S` seeds or splits, `R` resamples.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from research._estimates import rank_correlation, seed_interval
from research._front_jobs import VARIANTS
from research._front_measures import MECHANISM, METRICS, difference, with_interval
from research._front_objectives import trial_settings
from research._front_plan import CLOSED, FrontPlan
from research._front_regimes import REGIMES, regimes_of
from research._records import Record

__all__ = [
    "complete_trials",
    "geometry_rows",
    "kept_development_rows",
    "kept_rows",
    "mechanism_rows",
    "regime_rows",
    "test_rows",
]

Cells = dict[Hashable, list[tuple[float | None, float | None]]]


def complete_trials(plan: FrontPlan, data: str, recipe: str) -> dict[str, list[list[Record]]]:
    """Return the records of the objectives of which all trials are finished."""
    found = {}
    for entry in plan.entries if plan.start(data) is not None else ():
        trials = plan.trials(data, recipe, entry)
        known = [[record for record in records if record is not None] for records in trials]
        if all(len(records) == len(plan.options.splits) for records in known):
            found[entry] = known
    return found


# --- paired tests on test rows --------------------------------------------------------------------------------------


def _test_records(plan: FrontPlan, data: str, recipe: str) -> dict[str, list[Record]]:
    """Return the records of the objectives of which all seeds are finished, and that of kernel GCCA."""
    runs = {}
    for entry in plan.entries:
        jobs = [plan.test_job(data, recipe, entry, seed) for seed in plan.options.seeds]
        records = [plan.record(job) for job in jobs if job is not None]
        known = [record for record in records if record is not None and not record.failed]
        if len(known) == len(plan.options.seeds):
            runs[entry] = known
    closed = plan.closed_job(data, None)
    record = None if closed is None or not runs else plan.record(closed)
    return runs if record is None else {**runs, CLOSED: [record]}


def test_rows(plan: FrontPlan, data: str, recipe: str) -> Iterator[dict[str, Any]]:
    """Return means (without a baseline), and differences from InfoNCE and from kernel GCCA."""
    runs = _test_records(plan, data, recipe)
    for metric in METRICS:
        values = {entry: _values(records, metric) for entry, records in runs.items() if metric in records[0].resampled}
        for entry, found in values.items():
            place = {"data": data, "recipe": recipe, "objective": entry, "metric": metric}
            yield {**place, "baseline": None, **{k: v for k, v in with_interval(*found).items() if k != "p"}}
            for baseline in ("infonce", CLOSED):
                if baseline in values and entry not in (baseline, CLOSED):
                    yield {**place, "baseline": baseline, **difference(found, values[baseline])}


def _values(records: Sequence[Record], metric: str) -> tuple[Tensor, list[float]]:
    values_SR = torch.stack([record.resampled[metric].double() for record in records])
    return values_SR, [record.metrics[metric] for record in records]


# --- mechanism ------------------------------------------------------------------------------------------------------


def mechanism_rows(plan: FrontPlan, cells: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Correlate measures of geometry with joint R@1, over trials and over the arms of the test.

    Trials are ranked within a data set, recipe and split. An arm is an objective with its chosen settings; arms are
    ranked within a data set and recipe, by their means over seeds.
    """
    found = []
    for measure, label in MECHANISM.items():
        for recipe in plan.options.recipes:
            trials: Cells = {}
            arms: Cells = {}
            for data in (data for data, own in cells if own == recipe):
                for records in (r for trials_of in complete_trials(plan, data, recipe).values() for r in trials_of):
                    for s, record in enumerate(records):
                        trials.setdefault((data, s), []).append(_with_joint(record.metrics, measure))
                for row in geometry_rows(plan, data, recipe):
                    arms.setdefault(data, []).append(_with_joint(row["means"], measure))
            for level, pairs in (("trials", trials), ("arms", arms)):
                if (correlation := rank_correlation(pairs))["runs"]:
                    found.append({"measure": measure, "label": label, "recipe": recipe, "level": level, **correlation})
    return found


def _with_joint(metrics: Mapping[str, float], measure: str) -> tuple[float | None, float | None]:
    return metrics.get(measure), metrics.get("joint_recall@1")


def geometry_rows(plan: FrontPlan, data: str, recipe: str) -> Iterator[dict[str, Any]]:
    """Return the means over seeds of measures of geometry on the test rows."""
    for objective, records in _test_records(plan, data, recipe).items():
        names = [name for name in (*MECHANISM, "joint_recall@1") if name in records[0].metrics]
        means = {name: fmean(record.metrics[name] for record in records) for name in names}
        yield {"data": data, "recipe": recipe, "objective": objective, "means": means}


# --- regimes --------------------------------------------------------------------------------------------------------


def regime_rows(plan: FrontPlan, data: str, recipe: str) -> Iterator[dict[str, Any]]:
    for regime in regimes_of(data):
        found = {}
        for entry in plan.regime_entries(regime):
            trial = plan.regime_trial(data, recipe, regime, entry)
            if trial is None:
                continue
            jobs = [plan.regime_job(data, recipe, regime, entry, trial, k) for k in plan.options.regime_splits]
            records = [plan.record(job) for job in jobs if job is not None]
            known = [record for record in records if record is not None and not record.failed]
            if len(known) == len(plan.options.regime_splits):
                found[entry] = trial, known
        for entry, (trial, runs) in found.items():
            metrics, differences = {}, {}
            for name in METRICS:
                if name not in runs[0].metrics:
                    continue
                own = [run.metrics[name] for run in runs]
                metrics[name] = seed_interval(own)._asdict()
                if "infonce" in found and entry != "infonce":
                    other = [record.metrics[name] for record in found["infonce"][1]]
                    differences[name] = seed_interval([a - b for a, b in zip(own, other, strict=True)])._asdict()
            yield {
                "data": data,
                "recipe": recipe,
                "regime": regime,
                "title": REGIMES[regime].title,
                "objective": entry,
                "settings": trial_settings(entry, recipe, trial, temperatures=REGIMES[regime].temperatures),
                "metrics": metrics,
                "differences": differences,
            }


# --- training that keeps its start ----------------------------------------------------------------------------------


def kept_rows(plan: FrontPlan, data: str) -> Iterator[dict[str, Any]]:
    """Compare each variant with the closed form from which it starts, on the test rows."""
    for entry in plan.keep_entries():
        for decayed in (False, True):
            for variant in VARIANTS:
                if variant == "start":
                    continue
                trial = plan.keep_trial(data, entry, decayed, variant)
                if trial is None:
                    continue
                seeds = plan.options.keep_seeds
                jobs = [plan.keep_job(data, entry, decayed, trial, k=None, seed=seed) for seed in seeds]
                records = [plan.record(job) for job in jobs if job is not None]
                known = [record for record in records if record is not None and not record.failed]
                if len(known) < len(seeds):
                    continue
                place = {"data": data, "objective": entry, "decayed": decayed, "variant": variant}
                names = [name for name in METRICS if f"{variant}/{name}" in known[0].resampled]
                yield {
                    **place,
                    "trial": trial,
                    "means": {name: fmean(r.metrics[f"{variant}/{name}"] for r in known) for name in names},
                    "start": {name: known[0].metrics[f"start/{name}"] for name in names},
                    "differences": [
                        {
                            "metric": name,
                            **difference(_values(known, f"{variant}/{name}"), _values(known, f"start/{name}")),
                        }
                        for name in names
                    ],
                }


def kept_development_rows(plan: FrontPlan, data: str) -> Iterator[dict[str, Any]]:
    """Return the differences from the closed form on the held-out development rows, on which trials were compared."""
    for entry in plan.keep_entries():
        for decayed in (False, True):
            for variant in (name for name in VARIANTS if name != "start"):
                trial = plan.keep_trial(data, entry, decayed, variant)
                if trial is None:
                    continue
                records = [r for r in plan.keep_records(data, entry, decayed, trial) if r is not None]
                names = [name for name in METRICS if f"{variant}/{name}" in records[0].metrics]
                yield {
                    "data": data,
                    "objective": entry,
                    "decayed": decayed,
                    "variant": variant,
                    "trial": trial,
                    "differences": {
                        name: [r.metrics[f"{variant}/{name}"] - r.metrics[f"start/{name}"] for r in records]
                        for name in names
                    },
                }
