"""Build the content of a study's results.json, which has schema 1, as for comparisons, and an additional part `study`.

study.factors      arm -> plain values that distinguish the arm
study.tuning       arm -> trials with scores, and the index of the chosen trial; or {"as": another arm}
study.failed       arm -> error message, for arms without a summary
study.comparisons  paired ratios and differences
study.families     name, first arm, baselines
study.data         description of each data set
study.analysis     result of `Study.analyse`
runs[i].evaluations  measurements taken during training
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from research._jobs import SELECTION, Scheduler
from research._plan import Arm, Plan, Study
from research._records import Record
from unialign.data import EmbeddingStore
from unialign.evaluation import METRICS
from unialign.experiments import LEVEL, compare_entries, describe_data, describe_metrics, intervals
from unialign.io import describe_environment
from unialign.metrics import add_seed_variance, percentile_interval

__all__ = ["make_results", "rounded"]

Records = Mapping[tuple[str, int], Record]


def make_results(
    study: Study, jobs: Scheduler, stores: Mapping[str, EmbeddingStore], records: Records, tuning: Mapping[str, Any]
) -> dict[str, Any]:
    plan, options, seeds = jobs.plan, jobs.options, jobs.options.seeds
    runs = {arm.key: [records[arm.key, seed] for seed in seeds] for arm in plan.arms}
    failed = {
        key: next(f"seed {seed}: {run.failed}" for seed, run in zip(seeds, found, strict=True) if run.failed)
        for key, found in runs.items()
        if any(run.failed for run in found)
    }
    complete = {key: found for key, found in runs.items() if key not in failed}
    resampled = {key: _stacked(found) for key, found in complete.items()}
    summary = {key: intervals(found, resampled[key]) for key, found in complete.items()}
    data = {name: describe_data(store.select(_modalities(plan, name)), split="test") for name, store in stores.items()}
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": next(iter(data.values())),
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
            "tests": "two-sided paired bootstrap, Holm-corrected over primary metrics x baselines of a family",
            "selection": f"{SELECTION} on the validation split, mean over seeds {list(options.tuning_seeds)}; every "
            "tuned arm has the same number of trials",
        },
        "objectives": {arm.key: _objective(arm, runs[arm.key][0], jobs) for arm in plan.arms},
        "metrics": {
            name: text for name, text in describe_metrics().items() if any(name in s for s in summary.values())
        },
        "runs": [_run(arm, seed, records[arm.key, seed]) for arm in plan.arms for seed in seeds],
        "summary": summary,
        "comparisons": list(_family_tests(plan, complete, resampled)),
        "reproduce": f"python -m research {study.name} --config config.yaml --out again",
        "study": {
            "name": study.name,
            "title": study.title,
            "options": options.to_dict(),
            "trainings": jobs.total(),
            "data": data,
            "factors": {arm.key: dict(arm.factors) for arm in plan.arms},
            "tuning": dict(tuning),
            "failed": failed,
            "comparisons": list(_paired_comparisons(plan, complete, resampled)),
            "families": [{"name": f.name, "first": f.first, "baselines": list(f.baselines)} for f in plan.families],
            "analysis": {},
        },
    }


def _family_tests(
    plan: Plan, runs: Mapping[str, list[Record]], resampled: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[dict[str, Any]]:
    for family in plan.families:
        own = {key: runs[key] for key in (family.first, *family.baselines) if key in runs}
        if family.first in own:
            yield from ({"family": family.name, **test} for test in compare_entries(family.first, own, resampled))


def _paired_comparisons(
    plan: Plan, runs: Mapping[str, list[Record]], resampled: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[dict[str, Any]]:
    for comparison in plan.comparisons:
        sides = (comparison.first, comparison.baseline)
        if not all(comparison.metric in resampled.get(key, {}) for key in sides):
            continue
        first_SR, baseline_SR = (resampled[key][comparison.metric] for key in sides)
        first_S, baseline_S = (
            torch.tensor([run.metrics[comparison.metric] for run in runs[key]], dtype=torch.float64) for key in sides
        )
        combine = torch.div if comparison.kind == "ratio" else torch.sub
        points_S = combine(first_S, baseline_S)
        low, high = percentile_interval(add_seed_variance(combine(first_SR, baseline_SR), points_S), LEVEL)
        yield {**vars(comparison), "value": float(points_S.mean()), "low": low, "high": high}


def _stacked(runs: Sequence[Record]) -> dict[str, Tensor]:
    shared = [name for name in runs[0].resampled if all(name in run.resampled for run in runs)]
    order = list(METRICS)
    shared.sort(key=lambda name: order.index(name) if name in order else len(order))
    return {name: torch.stack([run.resampled[name] for run in runs]) for name in shared}


def _objective(arm: Arm, first_run: Record, jobs: Scheduler) -> dict[str, Any]:
    settings = arm.config(jobs.options.seeds[0], jobs.settings(arm)).to_dict()
    if arm.per_seed:
        settings["modalities"] = "differ by seed, see runs"
    if arm.init_from:
        settings["init_from"] = arm.init_from
    if arm.transform:
        settings["transform"] = {arm.transform.name: dict(arm.transform.arguments)}
    return {"label": arm.label, "note": arm.note, "settings": settings, "parameters": first_run.facts.get("parameters")}


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
        **({"evaluations": record.evaluations} if record.evaluations else {}),
        **({"failed": record.failed} if record.failed else {}),
    }


def _modalities(plan: Plan, data: str) -> list[str]:
    return list(dict.fromkeys(name for arm in plan.arms if arm.data == data for name in arm.modalities()))


def rounded(value: Any) -> Any:
    """Round to seven digits, so that pages can be regenerated exactly from the file."""
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
