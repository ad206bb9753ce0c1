"""The content of a study's results.json: schema 1, as a comparison has it, and a part `study` of its own.

study.factors    arm -> what tells it from the others
study.tuning     arm -> its trials with their scores and the chosen one, or {"as": another arm}
study.failed     arm -> why it has no summary
study.contrasts  paired ratios and differences of numbers that looks measured
study.families   name, first arm, rivals
study.data       every data set
study.analysis   what the study computes from the rest
runs[i].looks    what was measured at which step
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from research._jobs import SELECTION, Scheduler
from research._plan import Arm, Options, Plan, Study
from research._records import Record
from unialign.data import EmbeddingStore
from unialign.evaluation import METRICS
from unialign.experiments import (
    LEVEL,
    compare_entries,
    describe_data,
    describe_environment,
    describe_metrics,
    intervals,
)
from unialign.metrics import add_seed_variance, percentile_interval

__all__ = ["make_results", "rounded"]

Records = Mapping[tuple[str, int], Record]


def make_results(
    study: Study,
    plan: Plan,
    options: Options,
    stores: Mapping[str, EmbeddingStore],
    records: Records,
    tuning: Mapping[str, Any],
    jobs: Scheduler,
) -> dict[str, Any]:
    """Results of finished runs, without `study.analysis`."""
    seeds = options.seeds
    sound = [arm.key for arm in plan.arms if not any(records[arm.key, seed].failed for seed in seeds)]
    runs = {key: [records[key, seed] for seed in seeds] for key in sound}
    resampled = {key: _stacked(found) for key, found in runs.items()}
    summary = {key: intervals(runs[key], resampled[key]) for key in sound}
    comparisons = []
    for family in plan.families:
        own = {key: runs[key] for key in (family.first, *family.rivals) if key in runs}
        if family.first in own:
            found = compare_entries(family.first, own, resampled)
            comparisons += [{"family": family.name, **record} for record in found]
    data = {
        name: describe_data(store.select(_modalities(plan, name)), split="test", test_items=len(store.rows("test")))
        for name, store in stores.items()
    }
    first = next(iter(data.values()))
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": first,
        "protocol": {
            "name": f"study {study.name}: {study.title}",
            "split": "test",
            "pool": {name: about["test_items"] for name, about in data.items()},
            "seeds": list(seeds),
            "bootstrap": {
                "resamples": options.resamples,
                "level": LEVEL,
                "unit": "groups of near-duplicate items",
                "seeds": "variance of the mean over seeds is added",
            },
            "tests": "two-sided paired bootstrap, Holm-corrected over headline metrics x rivals of a family",
            "selection": f"{SELECTION} on the validation split, mean over seeds {list(options.tuning_seeds)}; every "
            "tuned arm has the same number of trials",
        },
        "objectives": {arm.key: _objective(arm, records, seeds, jobs) for arm in plan.arms},
        "metrics": {
            name: text for name, text in describe_metrics().items() if any(name in s for s in summary.values())
        },
        "runs": [_run(arm, seed, records[arm.key, seed]) for arm in plan.arms for seed in seeds],
        "summary": summary,
        "comparisons": comparisons,
        "reproduce": f"unialign study {study.name} --config config.yaml --out again",
        "study": {
            "name": study.name,
            "title": study.title,
            "options": options.to_dict(),
            "trainings": jobs.total(),
            "data": data,
            "factors": {arm.key: dict(arm.factors) for arm in plan.arms},
            "tuning": dict(tuning),
            "failed": _failed(plan, records, seeds),
            "contrasts": list(_contrasts(plan, runs, resampled)),
            "families": [{"name": f.name, "first": f.first, "rivals": list(f.rivals)} for f in plan.families],
            "analysis": {},
        },
    }


def _contrasts(
    plan: Plan, runs: Mapping[str, list[Record]], resampled: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[dict[str, Any]]:
    """Paired ratios and differences of what looks measured; arms that failed have none."""
    for contrast in plan.contrasts:
        sides = (contrast.first, contrast.rival)
        if not all(contrast.metric in resampled.get(key, {}) for key in sides):
            continue
        values = [resampled[key][contrast.metric] for key in sides]
        points = [
            torch.tensor([run.metrics[contrast.metric] for run in runs[key]], dtype=torch.float64) for key in sides
        ]
        if contrast.kind == "ratio":
            values_SR, points_S = values[0] / values[1], points[0] / points[1]
        else:
            values_SR, points_S = values[0] - values[1], points[0] - points[1]
        low, high = percentile_interval(add_seed_variance(values_SR, points_S), LEVEL)
        yield {**vars(contrast), "value": float(points_S.mean()), "low": low, "high": high}


def _stacked(runs: Sequence[Record]) -> dict[str, Tensor]:
    """Metric -> (S, R), for metrics that every seed has; headline first, as the table has them."""
    shared = [name for name in runs[0].resampled if all(name in run.resampled for run in runs)]
    order = list(METRICS)
    shared.sort(key=lambda name: order.index(name) if name in order else len(order))
    return {name: torch.stack([run.resampled[name] for run in runs]) for name in shared}


def _objective(arm: Arm, records: Records, seeds: Sequence[int], jobs: Scheduler) -> dict[str, Any]:
    settings = arm.config(seeds[0], jobs.settings(arm)).to_dict()
    if arm.per_seed:
        settings["modalities"] = "differ by seed, see runs"
    extra = {"start": arm.start, "change": arm.change and {arm.change.name: dict(arm.change.arguments)}}
    return {
        "label": arm.label,
        "note": arm.note,
        "settings": {**settings, **{key: value for key, value in extra.items() if value}},
        "parameters": records[arm.key, seeds[0]].facts.get("parameters"),
    }


def _run(arm: Arm, seed: int, record: Record) -> dict[str, Any]:
    modalities = arm.per_seed.get(seed, {}).get("modalities")
    return {
        "objective": arm.key,
        "seed": seed,
        "metrics": record.metrics,
        "directions": record.directions,
        "seconds": record.facts.get("seconds"),
        "steps": record.facts.get("steps"),
        "warnings": record.facts.get("warnings", []),
        **({"modalities": list(modalities)} if modalities else {}),
        **({"looks": record.looks} if record.looks else {}),
        **({"failed": record.failed} if record.failed else {}),
    }


def _failed(plan: Plan, records: Records, seeds: Sequence[int]) -> dict[str, str]:
    found = {(arm.key, seed): records[arm.key, seed].failed for seed in reversed(seeds) for arm in plan.arms}
    return {key: f"seed {seed}: {message}" for (key, seed), message in found.items() if message}


def _modalities(plan: Plan, data: str) -> list[str]:
    """Every modality that some arm trains on, in the order met."""
    met: dict[str, None] = {}
    for arm in plan.arms:
        if arm.data == data:
            for settings in ({"modalities": arm.train.modalities}, *arm.per_seed.values()):
                met |= dict.fromkeys(settings.get("modalities") or ())
    return list(met)


def rounded(value: Any) -> Any:
    """What the file will say: numbers with seven digits (more mean nothing, and would double its size), null for NaN.

    Pages are made of this, so that they are the same when they are made again from the file.
    """
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
