"""Choice of the default objective of the study `front` from development scores, and its tests on test rows."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from research._figures import minus
from research._front_measures import METRICS
from research._front_plan import CLOSED, FrontPlan, trial_score
from research._front_text import LABELS, NOT_RUN, Results, label_of, title_of, verdict
from research.pages import Table

__all__ = ["choose_default", "default_section"]

BASELINES = ("infonce", CLOSED)


def choose_default(plan: FrontPlan, recipe: str = "kernel") -> dict[str, Any]:
    """Return the objective with the highest development score, averaged over the data sets.

    The score of a data set is the mean logarithm of the metrics of the chosen trial, minus that of kernel GCCA on the
    same splits. Only data sets on which all objectives have a chosen trial are used.
    """
    scores: dict[str, dict[str, float]] = {}
    for data in plan.data:
        start = trial_score([_closed(plan, data, k) for k in plan.options.splits])
        found = {}
        for entry in plan.entries:
            if (trial := plan.chosen(data, recipe, entry)) is not None:
                found[entry] = trial_score(plan.trials(data, recipe, entry)[trial]) - start
        if found and len(found) == len(plan.entries) and not math.isnan(start):
            scores[data] = found
    means = {entry: fmean(own[entry] for own in scores.values()) for entry in plan.entries} if scores else {}
    return {
        "recipe": recipe,
        "scores": scores,
        "means": means,
        "chosen": max(means, key=lambda entry: means[entry], default=None),
    }


def _closed(plan: FrontPlan, data: str, k: int) -> Any:
    job = plan.closed_job(data, k)
    return None if job is None else plan.record(job)


def default_section(results: Results) -> list[Any]:
    found = results["study"]["default"]
    if found["chosen"] is None:
        return [NOT_RUN]
    data = list(found["scores"])
    order = sorted(found["means"].items(), key=lambda item: -item[1])
    rows = [
        [label_of(results, entry), *(_percent(found["scores"][name][entry]) for name in data), _percent(mean)]
        for entry, mean in order
    ]
    note = (
        "Development rows: gain of the chosen trial over kernel GCCA in percent, as the geometric mean over R@1, joint "
        "R@1 and label mAP, where the data have labels."
    )
    heads = [results["study"]["data"][name]["title"] for name in data]
    chosen = label_of(results, found["chosen"])
    return [
        Table(["objective", *heads, "mean"], rows, note),
        f"The objective with the highest mean is the default of this study: {chosen}.",
        *_tests(results, found),
    ]


def _percent(value: float) -> str:
    return minus(f"{100 * math.expm1(value):+.1f}")


def _tests(results: Results, found: Mapping[str, Any]) -> list[Any]:
    own = [
        test
        for test in results["study"]["test"]
        if test["objective"] == found["chosen"]
        and test["recipe"] == found["recipe"]
        and test["data"] in found["scores"]
    ]
    by = {(test["data"], test["metric"], test["baseline"]): test for test in own}
    data = list(dict.fromkeys(test["data"] for test in own))
    if not data:
        return []
    rows = [
        [
            title_of(results, name),
            label_of(results, baseline),
            *(verdict(by.get((name, metric, baseline))) for metric in METRICS),
        ]
        for name in data
        for baseline in BASELINES
    ]
    note = "Test rows: differences from the baseline, with the intervals and signs of the section Test."
    table = Table(["data", "baseline", *(LABELS[m] for m in METRICS)], rows, note)

    def on_data(names: list[str]) -> str:
        titles = [results["study"]["data"][name]["title"] for name in data if name in names]
        return f"{len(titles)} of {len(data)} data sets" + (f" ({', '.join(titles)})" if titles else "")

    tests = [test for test in own if "verdict" in test]
    ahead = [
        t["data"] for t in tests if t["baseline"] == "infonce" and t["metric"] != "recall@1" and t["verdict"] == "win"
    ]
    behind = [t["data"] for t in tests if t["high"] < 0]
    lost = [t["data"] for t in tests if t["verdict"] == "lose"]
    return [
        table,
        f"The default is significantly ahead of InfoNCE in joint R@1 or label mAP on {on_data(ahead)}. It is "
        f"significantly behind InfoNCE or kernel GCCA in some metric on {on_data(lost)}, and an interval is entirely "
        f"below InfoNCE or kernel GCCA on {on_data(behind)}.",
    ]
