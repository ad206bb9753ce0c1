"""Sections of the page of the study `front`, which depend only on its results."""

import math
from collections.abc import Mapping
from typing import Any

from research._front_default import default_section
from research._front_measures import METRICS
from research._front_page_tests import keep_section, mechanism_section, regimes_section, test_section
from research._front_plan import CLOSED, PARTS
from research._front_text import LABELS, NOT_RUN, Results, cell, cells_of, label_of, number, title_of
from research.pages import Dot, Mark, Panel, Section, Table, dots, figure, scatter

__all__ = ["page"]

_PART_TITLES = {
    "start": "closed form",
    "tuning": "trials on development splits",
    "test": "test rows, evaluated once",
    "regimes": "regimes",
    "keep": "training that keeps its start",
}


def page(results: Results) -> list[Section]:
    return [
        Section("status", "What has been run", _status(results)),
        Section("fronts", "Fronts and hypervolumes", _fronts(results)),
        Section("default", "Default objective", default_section(results)),
        Section("test", "Test", test_section(results)),
        Section("mechanism", "What goes with joint retrieval", mechanism_section(results)),
        Section("regimes", "Regimes", regimes_section(results)),
        Section("keep", "Training that keeps its start", keep_section(results)),
        Section("settings", "Chosen settings", _settings(results)),
    ]


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
    missing |= {label_of(results, name): why for name, why in study["unavailable"].items()}
    return parts + [f"Left out: {title}, since {why}." for title, why in missing.items()]


def _fronts(results: Results) -> list[Any]:
    found = results["study"]["hypervolume"]
    if not found:
        return [NOT_RUN]
    rows, panels = [], list[Panel]()
    for data, recipe in cells_of(results):
        own = [one for one in found if (one["data"], one["recipe"]) == (data, recipe)]
        own.sort(key=lambda one: -one["mean"])
        for one in own:
            rows.append(
                [
                    title_of(results, data, recipe),
                    label_of(results, one["objective"]),
                    cell(one, scale=1, decimals=3),
                    cell(one["difference"], scale=1, decimals=3, signed=True),
                    f"{one['on_front']} of {one['front']}",
                ]
            )
        if own:
            drawn = [Dot(label_of(results, o["objective"]), o["mean"], o["low"], o["high"]) for o in own]
            panels.append(dots(_panel_title(results, data, recipe), drawn, write=lambda value: f"{value:.2f}"))
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
        figure(
            "front-hypervolume",
            "Hypervolume of each objective",
            _start_note(results),
            panels,
            heading="Hypervolume, development",
        ),
        table,
        *_points(results),
    ]


def _points(results: Results) -> list[Any]:
    panels, marks = list[Panel](), dict[str, Mark]()
    for i, name in enumerate(name for name in results["study"]["labels"] if name != CLOSED):
        marks[name] = Mark(label_of(results, name), i)
    shown = set()
    for one in results["study"]["tuning"]:
        points = {
            marks[name]: [_point(trial) for trial in about["trials"]] for name, about in one["objectives"].items()
        }
        shown |= set(one["objectives"])
        title = _panel_title(results, one["data"], one["recipe"])
        panels.append(scatter(title, points, x_label="R@1, %", y_label="joint R@1, %"))
    legend = [mark for name, mark in marks.items() if name in shown]
    note = f"Means over the development splits, one point per trial. {_start_note(results)}".rstrip()
    return [figure("front-trials", "Trials of each objective", note, panels, heading="Trials", legend=legend)]


def _recipes(results: Results) -> list[str]:
    return list(dict.fromkeys(one["recipe"] for one in results["study"]["tuning"]))


def _panel_title(results: Results, data: str, recipe: str) -> str:
    """Omit the recipe if all panels have the same, since it would not fit."""
    return title_of(results, data, recipe if len(_recipes(results)) > 1 else "")


def _start_note(results: Results) -> str:
    recipes = _recipes(results)
    return f"All trainings start {results['study']['recipes'][recipes[0]]}." if len(recipes) == 1 else ""


def _point(trial: Mapping[str, Any]) -> tuple[float, float]:
    x, y = (trial.get(name) for name in ("recall@1", "joint_recall@1"))
    return (math.nan if x is None else 100 * x), (math.nan if y is None else 100 * y)


def _settings(results: Results) -> list[Any]:
    found = results["study"]["tuning"]
    if not found:
        return [NOT_RUN]
    rows = []
    for one in found:
        for name, about in one["objectives"].items():
            if about["chosen"] is None:
                continue
            trial = about["trials"][about["chosen"]]
            text = ", ".join(f"{k.rpartition('.')[2]} {v:g}" for k, v in trial["settings"].items())
            values = [number(trial.get(m)) for m in METRICS]
            rows.append([title_of(results, one["data"], one["recipe"]), label_of(results, name), text, *values])
        if one["closed"]:
            values = [number(one["closed"].get(m)) for m in METRICS]
            rows.append([title_of(results, one["data"], one["recipe"]), label_of(results, CLOSED), "", *values])
    note = (
        "The trial with the highest mean logarithm of R@1, joint R@1 and label mAP over the development splits, and "
        "its means there. A trial without a learning rate has that of the recipe."
    )
    return [Table(["data and start", "objective", "settings", *(LABELS[m] for m in METRICS)], rows, note)]
