"""Sections of the page of the study `front`, which depend only on its results."""

import math
from collections.abc import Mapping
from typing import Any

from research._figures import minus
from research._front_measures import METRICS
from research._front_plan import CLOSED, PARTS
from research.pages import Dot, Mark, Panel, Section, Table, dots, figure, scatter

__all__ = ["page"]

Results = Mapping[str, Any]
_LABELS = {"recall@1": "R@1, %", "joint_recall@1": "joint R@1, %", "label_map": "label mAP, %"}
_SIGNS = {"win": " ▲", "tie": " ≈", "lose": " ▼"}
_NOT_RUN = "Not run yet."
_DASH = "–"
_PART_TITLES = {
    "start": "closed form",
    "tuning": "trials on development splits",
    "test": "test rows, evaluated once",
    "regimes": "regimes",
    "keep": "training that keeps its start",
}
_VARIANTS = {
    "last": "last weights",
    "early": "early stopping",
    "interpolated": "interpolation with the start",
    "soup": "mean weights of three seeds",
    "soup_interpolated": "mean weights, interpolated",
    "ensemble": "ensemble of three seeds",
}


def page(results: Results) -> list[Section]:
    return [
        Section("status", "What has been run", _status(results)),
        Section("fronts", "Fronts and hypervolumes", _fronts(results)),
        Section("test", "Test", _test(results)),
        Section("mechanism", "What goes with joint retrieval", _mechanism(results)),
        Section("regimes", "Regimes", _regimes(results)),
        Section("keep", "Training that keeps its start", _keep(results)),
        Section("settings", "Chosen settings", _settings(results)),
    ]


def _cell(found: Mapping[str, Any] | None, *, scale: float = 100, decimals: int = 1, signed: bool = False) -> str:
    if found is None or found.get("mean") is None:
        return _DASH
    plus = "+" if signed else ""
    text = f"{scale * found['mean']:{plus}.{decimals}f}"
    if found.get("low") is not None and found.get("high") is not None:
        text += f" [{scale * found['low']:{plus}.{decimals}f}, {scale * found['high']:{plus}.{decimals}f}]"
    return minus(text)


def _cells(results: Results) -> list[tuple[str, str]]:
    study = results["study"]
    return [(data, recipe) for data in study["data"] for recipe in study["recipes"]]


def _title(results: Results, data: str, recipe: str = "") -> str:
    study = results["study"]
    title = str(study["data"][data]["title"])
    return f"{title}, {study['recipes'][recipe]}" if recipe else title


def _label(results: Results, objective: str) -> str:
    return str(results["study"]["labels"][objective])


# --- sections -------------------------------------------------------------------------------------------------------


def _status(results: Results) -> list[Any]:
    study = results["study"]
    progress = {(one["part"], one["data"], one["recipe"]): one for one in study["progress"]}
    columns = sorted({(part, recipe) for part, _, recipe in progress}, key=lambda c: (PARTS.index(c[0]), c[1]))
    rows = []
    for data, about in study["data"].items():
        if "missing" in about:
            rows.append([about["title"], *(["no store"] * len(columns))])
            continue
        found = [progress[part, data, recipe] for part, recipe in columns]
        rows.append([about["title"], *(f"{one['done']} of {one['planned']}" for one in found)])
    heads = [_PART_TITLES[part] + (f", {study['recipes'][recipe]}" if recipe else "") for part, recipe in columns]
    parts: list[Any] = [
        Table(
            ["data", *heads],
            rows,
            "Trainings done, out of those planned. Tables below contain only objectives of which all trainings of the "
            "part are done.",
        )
    ]
    missing = {about["title"]: about["missing"] for about in study["data"].values() if "missing" in about}
    missing |= {_label(results, name): why for name, why in study["unavailable"].items()}
    return parts + [f"Left out: {title}, since {why}." for title, why in missing.items()]


def _fronts(results: Results) -> list[Any]:
    found = results["study"]["hypervolume"]
    if not found:
        return [_NOT_RUN]
    rows, panels = [], list[Panel]()
    for data, recipe in _cells(results):
        own = [one for one in found if (one["data"], one["recipe"]) == (data, recipe)]
        own.sort(key=lambda one: -one["mean"])
        for one in own:
            rows.append(
                [
                    _title(results, data, recipe),
                    _label(results, one["objective"]),
                    _cell(one, scale=1, decimals=3),
                    _cell(one["difference"], scale=1, decimals=3, signed=True),
                    f"{one['on_front']} of {one['front']}",
                ]
            )
        if own:
            drawn = [Dot(_label(results, o["objective"]), o["mean"], o["low"], o["high"]) for o in own]
            panels.append(dots(_title(results, data, recipe), drawn, write=lambda value: f"{value:.2f}"))
    trials = results["study"]["options"]["trials"]
    splits = len(results["study"]["options"]["splits"])
    table = Table(
        ["data and start", "objective", "hypervolume", "minus InfoNCE", "trials on the front"],
        rows,
        f"{trials} trials for each objective, {splits} development splits. The hypervolume is the share of a box over "
        "R@1, joint R@1 and label mAP that the trials dominate. The box of a split reaches from the lower quartile of "
        "all trials of all objectives to their best value. 95 % intervals over groups of items and splits. The front "
        "is that of all trials of all objectives, by their means over splits.",
    )
    return [
        figure("front-hypervolume", "Hypervolume of each objective", "", panels, heading="Hypervolume, development"),
        table,
        *_points(results),
    ]


def _points(results: Results) -> list[Any]:
    panels, marks = list[Panel](), dict[str, Mark]()
    for number, name in enumerate(name for name in results["study"]["labels"] if name != CLOSED):
        marks[name] = Mark(_label(results, name), number)
    shown = set()
    for one in results["study"]["tuning"]:
        points = {
            marks[name]: [_point(trial) for trial in about["trials"]] for name, about in one["objectives"].items()
        }
        shown |= set(one["objectives"])
        title = _title(results, one["data"], one["recipe"])
        panels.append(scatter(title, points, x_label="R@1, %", y_label="joint R@1, %"))
    legend = [mark for name, mark in marks.items() if name in shown]
    note = "Means over the development splits, one point per trial."
    return [figure("front-trials", "Trials of each objective", note, panels, heading="Trials", legend=legend)]


def _point(trial: Mapping[str, Any]) -> tuple[float, float]:
    x, y = (trial.get(name) for name in ("recall@1", "joint_recall@1"))
    return (math.nan if x is None else 100 * x), (math.nan if y is None else 100 * y)


def _test(results: Results) -> list[Any]:
    tests = results["study"]["test"]
    if not tests:
        return [_NOT_RUN]
    seeds = len(results["study"]["options"]["seeds"])
    parts: list[Any] = [
        f"The settings with the best development score, {seeds} seeds, means with 95 % intervals over groups of items "
        "and seeds. ▲ significantly better than the baseline, ▼ significantly worse, ≈ no significant difference; "
        f"Holm-corrected over all {results['study']['tests_in_family']} tests of this page."
    ]
    for data, recipe in _cells(results):
        own = [one for one in tests if (one["data"], one["recipe"]) == (data, recipe)]
        if not own:
            continue
        by = {(one["objective"], one["metric"], one["baseline"]): one for one in own}
        objectives = list(dict.fromkeys(one["objective"] for one in own))
        metrics = [name for name in METRICS if any(one["metric"] == name for one in own)]
        means = [[_label(results, name), *(_cell(by.get((name, m, None))) for m in metrics)] for name in objectives]
        parts.append(f"{_title(results, data, recipe)}:")
        parts.append(Table(["objective", *(_LABELS[m] for m in metrics)], means))
        for baseline in ("infonce", CLOSED):
            rows = [
                [_label(results, name), *(_verdict(by.get((name, m, baseline))) for m in metrics)]
                for name in objectives
                if any((name, m, baseline) in by for m in metrics)
            ]
            if rows:
                head = f"minus {_label(results, baseline)}"
                parts.append(Table([head, *(_LABELS[m] for m in metrics)], rows))
    return parts


def _verdict(test: Mapping[str, Any] | None) -> str:
    return _DASH if test is None else _cell(test, signed=True) + _SIGNS[test["verdict"]]


def _mechanism(results: Results) -> list[Any]:
    found = results["study"]["mechanism"]
    if not found:
        return [_NOT_RUN]
    recipes = [name for name in results["study"]["recipes"] if any(one["recipe"] == name for one in found)]
    by = {(one["label"], one["recipe"]): one for one in found}
    rows = [
        [label, *(_cell(by.get((label, recipe)), scale=1, decimals=2, signed=True) for recipe in recipes)]
        for label in dict.fromkeys(one["label"] for one in found)
    ]
    runs = {one["recipe"]: one["runs"] for one in found}
    numbers = ", ".join(f"{runs[recipe]} trainings {results['study']['recipes'][recipe]}" for recipe in recipes)
    note = (
        "Spearman's correlation with joint R@1 over all trials of all objectives, within each data set and development "
        f"split ({numbers}); 95 % bootstrap intervals over trainings, which share items."
    )
    return [Table(["measure", *(results["study"]["recipes"][name] for name in recipes)], rows, note)]


def _regimes(results: Results) -> list[Any]:
    found = results["study"]["regimes"]
    if not found:
        return [_NOT_RUN]
    parts: list[Any] = [
        "Development rows only. Four trials for each objective are compared on one split; the best is measured on four "
        "other splits. Means and differences from InfoNCE in the same regime, with 95 % t-intervals over the four "
        "splits, which share items; no verdicts."
    ]
    for data, recipe in _cells(results):
        own = [one for one in found if (one["data"], one["recipe"]) == (data, recipe)]
        rows = [
            [one["title"], _label(results, one["objective"]), *(_regime_cell(one, m) for m in METRICS)] for one in own
        ]
        if rows:
            parts.append(f"{_title(results, data, recipe)}:")
            parts.append(Table(["regime", "objective", *(_LABELS[m] for m in METRICS)], rows))
    return parts


def _regime_cell(one: Mapping[str, Any], metric: str) -> str:
    mean = one["metrics"].get(metric)
    if mean is None or mean["mean"] is None:
        return _DASH
    text = f"{100 * mean['mean']:.1f}"
    other = one["differences"].get(metric)
    return text if other is None else f"{text}; {_cell(other, signed=True)}"


def _keep(results: Results) -> list[Any]:
    found = results["study"]["keep"]
    if not found:
        return [_NOT_RUN]
    parts: list[Any] = [
        "Differences from kernel GCCA, where the training starts, on the test rows, with 95 % intervals over groups of "
        "items and five repetitions. Every row has four trials of learning rate, temperature and, with decay, its "
        "strength, compared on development rows. Epochs and interpolations are chosen on validation rows. Means and "
        "ensembles cost three trainings. Signs are as above."
    ]
    for data in dict.fromkeys(one["data"] for one in found):
        own = [one for one in found if one["data"] == data]
        rows = []
        for one in own:
            kind = "decay to the start, " if one["decayed"] else ""
            by = {test["metric"]: test for test in one["differences"]}
            name = f"{_label(results, one['objective'])}: {kind}{_VARIANTS[one['variant']]}"
            rows.append([name, *(_verdict(by.get(m)) for m in METRICS)])
        start = own[0]["start"]
        values = ", ".join(f"{_LABELS[m].removesuffix(', %')} {100 * start[m]:.1f}" for m in METRICS if m in start)
        parts.append(f"{_title(results, data)}; kernel GCCA has {values} %:")
        parts.append(Table(["minus kernel GCCA", *(_LABELS[m] for m in METRICS)], rows))
    return parts


def _settings(results: Results) -> list[Any]:
    found = results["study"]["tuning"]
    if not found:
        return [_NOT_RUN]
    rows = []
    for one in found:
        for name, about in one["objectives"].items():
            if about["chosen"] is None:
                continue
            trial = about["trials"][about["chosen"]]
            text = ", ".join(f"{k.rpartition('.')[2]} {v:g}" for k, v in trial["settings"].items())
            values = [_number(trial.get(m)) for m in METRICS]
            rows.append([_title(results, one["data"], one["recipe"]), _label(results, name), text, *values])
        if one["closed"]:
            values = [_number(one["closed"].get(m)) for m in METRICS]
            rows.append([_title(results, one["data"], one["recipe"]), _label(results, CLOSED), "", *values])
    note = (
        "The trial with the highest mean logarithm of R@1, joint R@1 and label mAP over the development splits, and "
        "its means there. A trial without a learning rate has that of the recipe."
    )
    return [Table(["data and start", "objective", "settings", *(_LABELS[m] for m in METRICS)], rows, note)]


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{100 * value:.1f}"
