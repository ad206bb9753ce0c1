"""Sections of the page of the study `front` with tests, correlations, regimes, and training that keeps its start."""

from collections.abc import Mapping
from typing import Any

from research._figures import minus
from research._front_measures import MECHANISM, METRICS
from research._front_plan import CLOSED
from research._front_text import DASH, LABELS, NOT_RUN, Results, cell, cells_of, label_of, number, title_of, verdict
from research.pages import Table

__all__ = ["keep_section", "mechanism_section", "regimes_section", "test_section"]

_VARIANTS = {
    "last": "last weights",
    "early": "early stopping",
    "interpolated": "interpolation with the start",
    "soup": "mean weights of three seeds",
    "soup_interpolated": "mean weights, interpolated",
    "ensemble": "ensemble of three seeds",
}


def test_section(results: Results) -> list[Any]:
    tests = results["study"]["test"]
    if not tests:
        return [NOT_RUN]
    seeds = len(results["study"]["options"]["seeds"])
    parts: list[Any] = [
        f"The settings with the best development score, {seeds} seeds, means with 95 % intervals over groups of items "
        "and seeds. ▲ significantly better than the baseline, ▼ significantly worse, ≈ no significant difference; "
        f"Holm-corrected over all {results['study']['tests_in_family']} tests of this page."
    ]
    for data, recipe in cells_of(results):
        own = [one for one in tests if (one["data"], one["recipe"]) == (data, recipe)]
        if not own:
            continue
        by = {(one["objective"], one["metric"], one["baseline"]): one for one in own}
        objectives = list(dict.fromkeys(one["objective"] for one in own))
        metrics = [name for name in METRICS if any(one["metric"] == name for one in own)]
        means = [[label_of(results, name), *(cell(by.get((name, m, None))) for m in metrics)] for name in objectives]
        parts.append(f"{title_of(results, data, recipe)}:")
        parts.append(Table(["objective", *(LABELS[m] for m in metrics)], means))
        for baseline in ("infonce", CLOSED):
            rows = [
                [label_of(results, name), *(verdict(by.get((name, m, baseline))) for m in metrics)]
                for name in objectives
                if any((name, m, baseline) in by for m in metrics)
            ]
            if rows:
                head = f"minus {label_of(results, baseline)}"
                parts.append(Table([head, *(LABELS[m] for m in metrics)], rows))
    return parts


def mechanism_section(results: Results) -> list[Any]:
    found = results["study"]["mechanism"]
    if not found:
        return [NOT_RUN]
    columns = list(dict.fromkeys((one["level"], one["recipe"]) for one in found))
    by = {(one["label"], one["level"], one["recipe"]): one for one in found}
    rows = [
        [label, *(cell(by.get((label, *column)), scale=1, decimals=2, signed=True) for column in columns)]
        for label in dict.fromkeys(one["label"] for one in found)
    ]
    runs = {(one["level"], one["recipe"]): one["runs"] for one in found}
    heads = [f"{runs[column]} {column[0]}, {results['study']['recipes'][column[1]]}" for column in columns]
    note = (
        "Spearman's correlation with joint R@1. Trials are ranked within each data set and development split; arms, "
        "which are the chosen settings of each objective and the closed form, within the test rows of each data set, "
        "by their means over seeds. 95 % bootstrap intervals over trainings or arms, which share items."
    )
    return [Table(["measure", *heads], rows, note), *_geometry(results)]


def _geometry(results: Results) -> list[Any]:
    parts: list[Any] = []
    for data, recipe in cells_of(results):
        own = [one for one in results["study"]["geometry"] if (one["data"], one["recipe"]) == (data, recipe)]
        if not own:
            continue
        own.sort(key=lambda one: -one["means"].get("joint_recall@1", 0.0))
        rows = [
            [
                label_of(results, one["objective"]),
                *(_plain(one["means"].get(name)) for name in MECHANISM),
                number(one["means"].get("joint_recall@1")),
            ]
            for one in own
        ]
        head = ["objective", *MECHANISM.values(), LABELS["joint_recall@1"]]
        parts.append(Table(head, rows, f"{title_of(results, data, recipe)}, test rows, means over seeds."))
    return parts


def _plain(value: float | None) -> str:
    return DASH if value is None else minus(f"{value:.3g}")


def regimes_section(results: Results) -> list[Any]:
    found = results["study"]["regimes"]
    if not found:
        return [NOT_RUN]
    parts: list[Any] = [
        "Development rows only. Four trials for each objective are compared on one split; the best is measured on four "
        "other splits. Means and differences from InfoNCE in the same regime, with 95 % t-intervals over the four "
        "splits, which share items; no verdicts."
    ]
    for data, recipe in cells_of(results):
        own = [one for one in found if (one["data"], one["recipe"]) == (data, recipe)]
        rows = [
            [one["title"], label_of(results, one["objective"]), *(_regime_cell(one, m) for m in METRICS)] for one in own
        ]
        if rows:
            parts.append(f"{title_of(results, data, recipe)}:")
            parts.append(Table(["regime", "objective", *(LABELS[m] for m in METRICS)], rows))
    return parts


def _regime_cell(one: Mapping[str, Any], metric: str) -> str:
    mean = one["metrics"].get(metric)
    if mean is None or mean["mean"] is None:
        return DASH
    text = f"{100 * mean['mean']:.1f}"
    other = one["differences"].get(metric)
    return text if other is None else f"{text}; {cell(other, signed=True)}"


def keep_section(results: Results) -> list[Any]:
    found = results["study"]["keep"]
    development = _kept_on_development(results)
    if not found:
        return [*development, "The test rows were not evaluated yet."] if development else [NOT_RUN]
    parts: list[Any] = [
        *development,
        "Differences from kernel GCCA, where the training starts, on the test rows, with 95 % intervals over groups of "
        "items and five repetitions. Every row has four trials of learning rate, temperature and, with decay, its "
        "strength, compared on development rows. Epochs and interpolations are chosen on validation rows. Means and "
        "ensembles cost three trainings. Signs are as above.",
    ]
    for data in dict.fromkeys(one["data"] for one in found):
        own = [one for one in found if one["data"] == data]
        rows = []
        for one in own:
            by = {test["metric"]: test for test in one["differences"]}
            rows.append([_way(results, one), *(verdict(by.get(m)) for m in METRICS)])
        start = own[0]["start"]
        values = ", ".join(f"{LABELS[m].removesuffix(', %')} {100 * start[m]:.1f}" for m in METRICS if m in start)
        parts.append(f"{title_of(results, data)}; kernel GCCA has {values} %:")
        parts.append(Table(["minus kernel GCCA", *(LABELS[m] for m in METRICS)], rows))
    return [*parts, _harmless(results)]


def _kept_on_development(results: Results) -> list[Any]:
    rows = []
    for one in results["study"]["keep_development"]:
        values = [one["differences"].get(metric) for metric in METRICS]
        texts = [DASH if v is None else ", ".join(minus(f"{100 * x:+.1f}") for x in v) for v in values]
        rows.append([title_of(results, one["data"]), _way(results, one), *texts])
    if not rows:
        return []
    note = (
        "Held-out development rows: one difference from kernel GCCA for each development split. The best of the trials "
        "was chosen on the same rows, so these differences are optimistic; they have no intervals."
    )
    return [Table(["data", "training", *(LABELS[m] for m in METRICS)], rows, note)]


def _harmless(results: Results) -> str:
    """Name the ways of training without a metric whose interval is below the start, on any data set."""
    found = results["study"]["keep"]
    data = {one["data"] for one in found}
    ways = dict.fromkeys((one["objective"], one["decayed"], one["variant"]) for one in found)
    kept = []
    for way in ways:
        own = [one for one in found if (one["objective"], one["decayed"], one["variant"]) == way]
        is_harmless = all(test["high"] >= 0 for one in own for test in one["differences"])
        if is_harmless and {one["data"] for one in own} == data:
            kept.append(_way(results, own[0]))
    where = f"{len(data)} data {'set' if len(data) == 1 else 'sets'}"
    if not kept:
        return f"Every way of training has a metric whose interval is below that of the start, on {where}."
    return (
        f"Ways of training without any metric whose interval is below that of the start, on {where}: {'; '.join(kept)}."
    )


def _way(results: Results, one: Mapping[str, Any]) -> str:
    kind = "decay to the start, " if one["decayed"] else ""
    return f"{label_of(results, one['objective'])}: {kind}{_VARIANTS[one['variant']]}"
