"""Measure the Hölder divergence during training, and its rank correlation with retrieval and gap."""

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from statistics import median
from typing import Any

from research._closed_forms import closed_form_arms, closed_form_family, closed_form_section, is_closed_form
from research._estimates import Interval, rank_correlation, seed_interval
from research._figures import format_interval, minus, seed_series, trials_table
from research._plan import Arm, EvalHook, Options, Plan, Study
from research._read import Results, as_float, completed, evaluations, label, runs_of
from research._settings import ANCHORS, OBJECTIVE_TRIALS, base
from research.pages import Dot, Mark, Panel, Section, Series, Table, dots, figure, lines
from unialign.losses import display_name as objective_label

__all__ = ["STUDY"]

EPOCHS = 30
POINTS = 8
MODALITIES = {"emoji": ("image", "text", "speech"), "digits": ("pix", "fou", "kar")}
BANDWIDTHS: tuple[float | str, ...] = (0.07, 0.2, 0.5, 1.0, "median")
ESTIMATORS = {"plugin": "at the anchor", "plugin_avg": "plug-in", "pooled": "pooled", "debiased": "debiased"}
OTHERS = {"cauchy_schwarz": "Cauchy-Schwarz", "mmd2": "MMD², unbiased"}
OUTCOMES = {"recall@1": "R@1", "modality_gap_debiased": "debiased gap"}
# The names of the outcomes in the measurements during training.
_SEEN = {"recall@1": "divergence/recall@1", "modality_gap_debiased": "divergence/gap_debiased"}
# The tolerance is relative, since values in results.json have seven digits.
_ROUNDING = 1e-6


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    arms: list[Arm] = []
    for data, modalities in MODALITIES.items():
        hook = EvalHook("divergence", {"anchor": ANCHORS[data], "bandwidths": list(BANDWIDTHS)}, points=POINTS)
        arms += [
            Arm(
                key=f"{data}-{key}",
                label=f"{title}, {data}",
                data=data,
                train=base(data, objective, modalities, epochs=epochs, **extra),
                factors={"data": data, "objective": key, "label": title},
                anchor=ANCHORS[data],
                # Use the trials of InfoNCE, since tuning the divergence weight for R@1 would remove the term.
                trials=OBJECTIVE_TRIALS["infonce" if objective == "cs_aligner" else objective],
                eval_hook=hook,
            )
            for key, objective, title, extra in _trained()
        ]
        arms += closed_form_arms(
            data,
            modalities,
            prefix=f"closed-{data}",
            factors={"data": data},
            anchor=ANCHORS[data],
            eval_hook=dataclasses.replace(hook, points=1),
        )
    families = (closed_form_family(first, prefix=f"closed-{data}") for data, first in _compared())
    return Plan(arms=tuple(arms), families=tuple(families))


def _compared() -> list[tuple[str, str]]:
    """Return the arms that are compared with the closed forms, with their data sets."""
    return [(data, f"{data}-{objective}") for data in MODALITIES for objective in ("unialign", "infonce")]


def _trained() -> list[tuple[str, str, str, dict[str, Any]]]:
    plain = [(name, name, objective_label(name), dict[str, Any]()) for name in ("unialign", "infonce", "gram")]
    # With the settings of CS-Aligner (median bandwidth, weight 1), the term has no effect on these data.
    strong = {"bandwidth": 0.5, "divergence_weight": 3.0}
    return [
        *plain,
        ("cs_aligner", "cs_aligner", "InfoNCE + Cauchy-Schwarz", strong),
        ("holder", "cs_aligner", "InfoNCE + Hölder", {**strong, "divergence": "holder"}),
    ]


# --- analysis across arms -------------------------------------------------------------------------------------------


def analyse(results: Results) -> dict[str, Any]:
    arms = [arm for arm in completed(results) if not is_closed_form(results, arm)]
    names = [f"{name}@{_written(b)}" for name in (*ESTIMATORS, *OTHERS) for b in BANDWIDTHS]
    return {
        "bound": [_bound(results, data, _written(b)) for data in MODALITIES for b in BANDWIDTHS],
        "correlations": [
            {"divergence": name, "outcome": outcome, "when": when, **found}
            for name in names
            for outcome in OUTCOMES
            for when, found in _correlations(results, arms, name, outcome)
        ],
    }


def _bound(results: Results, data: str, bandwidth: str) -> dict[str, Any]:
    names = [f"divergence/{name}@{bandwidth}" for name in ("plugin", "bound", "mean_log")]
    runs = [run for arm in _arms(results, data) for run in runs_of(results, arm)]
    measured = [[evaluation[name] for name in names] for run in runs for evaluation in run["evaluations"]]
    found = [numbers for numbers in measured if numbers[2] is not None]
    slack = [bound - value for value, bound, _ in found]
    return {
        "data": data,
        "bandwidth": bandwidth,
        "evaluations": len(found),
        "violations": sum(_below(bound, value) for value, bound, _ in found),
        "violations_mean_log": sum(_below(mean_log, value) for value, _, mean_log in found),
        "value_median": median(value for value, *_ in found) if found else math.nan,
        "bound_median": median(bound for _, bound, _ in found) if found else math.nan,
        "slack_smallest": min(slack, default=math.nan),
        "slack_median": median(slack) if slack else math.nan,
    }


def _below(bound: float, value: float) -> bool:
    return bound < value - _ROUNDING * max(abs(bound), abs(value))


def _correlations(
    results: Results, arms: Sequence[str], name: str, outcome: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    by_data: dict[Hashable, list[tuple[float, float]]] = {}
    by_arm: dict[Hashable, list[tuple[float, float]]] = {}
    during = []
    for arm in arms:
        for run in runs_of(results, arm):
            pair = (run["evaluations"][-1].get(f"divergence/{name}"), run["metrics"].get(outcome))
            by_data.setdefault(results["study"]["factors"][arm]["data"], []).append(pair)
            by_arm.setdefault(arm, []).append(pair)
            course = [(e.get(f"divergence/{name}"), e.get(_SEEN[outcome])) for e in run["evaluations"]]
            during.append(rank_correlation({0: course}, resamples=1)["mean"])
    yield "objectives", rank_correlation(by_data)
    yield "seeds", rank_correlation(by_arm)
    # Correlate the evaluations of each run. Evaluations are dependent, so the interval is over runs.
    yield "training", {**seed_interval(during)._asdict(), "runs": len(during), "cells": len(during)}


# --- the page -------------------------------------------------------------------------------------------------------


def page(results: Results) -> list[Section]:
    return [
        Section("training", "Over training, by estimator and bandwidth", _training_parts(results)),
        Section("bandwidths", "Values by bandwidth", _bandwidth_parts(results)),
        Section("bound", "Upper bound and measured value", _bound_parts(results)),
        Section("prediction", "Correlation with retrieval and gap", _prediction_parts(results)),
        *(
            section
            for data in MODALITIES
            for section in closed_form_section(
                results,
                [first for own, first in _compared() if own == data],
                prefix=f"closed-{data}",
                title=f"Against the closed forms on {data}",
            )
        ),
        Section("tuning", "Tuned settings", [trials_table(results)]),
    ]


def answer(results: Results) -> list[str]:
    found = results["study"]["analysis"]
    violated, evaluated = (sum(b[name] for b in found["bound"]) for name in ("violations", "evaluations"))
    shown = [c for c in found["correlations"] if (c["divergence"], c["when"]) == ("debiased@median", "objectives")]
    lines_found = [f"The upper bound was violated in {violated} of {evaluated} evaluations."]
    for c in shown:
        outcome, rho = OUTCOMES[c["outcome"]], format_interval(c, decimals=2)
        text = "Rank correlation of the debiased Hölder divergence (median bandwidth) with"
        lines_found.append(f"{text} {outcome} across objectives: {rho}.")
    return lines_found


def _written(bandwidth: float | str) -> str:
    return bandwidth if isinstance(bandwidth, str) else f"{bandwidth:g}"


def _arms(results: Results, data: str) -> list[str]:
    factors = results["study"]["factors"]
    arms = (arm for arm in completed(results) if not is_closed_form(results, arm))
    return [arm for arm in arms if factors[arm]["data"] == data]


def _marks(results: Results, data: str) -> dict[str, Mark]:
    order = [key for key, *_ in _trained()]
    factors = results["study"]["factors"]
    return {arm: Mark(factors[arm]["label"], order.index(factors[arm]["objective"])) for arm in _arms(results, data)}


def _course(results: Results, arm: str, name: str, mark: Mark) -> Series:
    return seed_series(mark, evaluations(results, arm, f"divergence/{name}"))


def _training_parts(results: Results) -> list[Any]:
    figures = []
    for data in MODALITIES:
        marks = _marks(results, data)
        if not marks:
            continue
        panels: list[Panel] = [
            lines(
                f"{title}, bandwidth {_written(b)}",
                [_course(results, arm, f"{name}@{_written(b)}", mark) for arm, mark in marks.items()],
                x_label="step",
            )
            for b in (0.2, 0.5, "median")
            for name, title in (*list(ESTIMATORS.items())[1:], *OTHERS.items())
        ]
        figures.append(
            figure(
                f"divergence-training-{data}",
                f"Divergences over training on {data}",
                f"{', '.join(MODALITIES[data])}; test rows; means over seeds with 95 % t-intervals. Each row of panels "
                "is for one bandwidth. Cauchy-Schwarz and MMD² are means over pairs. Arms with “InfoNCE +” are trained "
                "with a divergence of weight 3 and bandwidth 0.5.",
                panels,
                columns=5,
                legend=list(marks.values()),
            )
        )
    return figures


def _bandwidth_parts(results: Results) -> list[Any]:
    names = {**ESTIMATORS, **OTHERS, "neighbors": "neighbors", "neighbors_debiased": "neighbors without itself"}
    rows = []
    for data, key in itertools.product(MODALITIES, ("unialign", "infonce")):
        arm = f"{data}-{key}"
        if arm not in results["summary"]:
            continue
        for b in BANDWIDTHS:
            cells = []
            for name in names:
                by_step = evaluations(results, arm, f"divergence/{name}@{_written(b)}")
                start, end = (seed_interval(by_step[step]).mean for step in (min(by_step), max(by_step)))
                cells.append(f"{_brief(start)} → {_brief(end)}")
            rows.append([f"{label(results, arm)}, {_written(b)}", *cells])
    counts = [about["test_items"] for about in results["study"]["data"].values()]
    return [
        "Values before → after training. With fewer than two effective neighbors, a divergence compares paired "
        "points rather than distributions.",
        Table(
            ["objective, data, bandwidth", *names.values()],
            rows,
            "Means over seeds. Neighbors: effective number of rows that contribute to a density, out of "
            f"{' or '.join(map(str, counts))} rows per modality.",
        ),
    ]


def _brief(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _bound_parts(results: Results) -> list[Any]:
    found = results["study"]["analysis"]["bound"]
    rows = [
        [
            f"{b['data']}, {b['bandwidth']}",
            f"{b['violations']} of {b['evaluations']}",
            f"{b['violations_mean_log']} of {b['evaluations']}",
            *(_brief(as_float(b[name])) for name in ("value_median", "bound_median", "slack_median", "slack_smallest")),
        ]
        for b in found
    ]
    panels = []
    for data in MODALITIES:
        marks = {arm: mark for arm, mark in _marks(results, data).items() if arm.endswith(("-unialign", "-infonce"))}
        for b in (0.07, 0.2, 0.5):
            series = [_course(results, arm, f"plugin@{_written(b)}", mark) for arm, mark in marks.items()]
            series += [
                _course(results, arm, f"bound@{_written(b)}", Mark(f"bound, {mark.label}", mark.number, "dashed"))
                for arm, mark in marks.items()
            ]
            panels.append(lines(f"{data}, bandwidth {_written(b)}", series, x_label="step"))
    legend = [Mark(objective_label(o), i) for i, o in enumerate(_SHOWN)]
    legend += [Mark(f"bound, {mark.label}", mark.number, "dashed") for mark in legend]
    violated, evaluated = (sum(b[name] for b in found) for name in ("violations", "evaluations"))
    return [
        "The upper bound of the plug-in value at the anchor is the sum of uniformity (the log of the mean), "
        f"(M − 1)/(2 τ²) times alignment, and (M − 1) log B. It was violated in {violated} of {evaluated} evaluations. "
        "With the mean of logs, as in the training loss, the sum is not a bound; the table counts the evaluations in "
        "which the sum is below the value.",
        figure(
            "divergence-bound",
            "Plug-in Hölder divergence at the anchor and its upper bound over training",
            "Means over seeds; dashed: the bound.",
            panels,
            heading="The upper bound and the measured value",
            columns=3,
            legend=legend,
        ),
        Table(
            ["data, bandwidth", "violated", "mean of logs below value", "value", "bound", "slack", "smallest slack"],
            rows,
            "All objectives, seeds and evaluations; value, bound and slack are medians.",
        ),
    ]


_SHOWN = ("unialign", "infonce")
_WHEN = {"objectives": "across objectives", "seeds": "across seeds"}


def _prediction_parts(results: Results) -> list[Any]:
    found = results["study"]["analysis"]["correlations"]
    by = {(c["divergence"], c["outcome"], c["when"]): c for c in found}
    titles = {**ESTIMATORS, **OTHERS}
    names = [
        (f"{name}@{_written(b)}", f"{titles[name]}, {_written(b)}", i)
        for i, name in enumerate(titles)
        for b in BANDWIDTHS
    ]
    panels = []
    for when, title in _WHEN.items():
        for outcome, short in OUTCOMES.items():
            rows = [Dot(text, *Interval.read(by[name, outcome, when]), number=n) for name, text, n in names]
            panels.append(dots(f"with {short}, {title}", rows, reference=0.0, write=lambda v: minus(f"{v:.2f}")))
    table = [
        [text, *(format_interval(by[name, outcome, "training"], decimals=2) for outcome in OUTCOMES)]
        for name, text, _ in names
    ]
    return [
        figure(
            "divergence-prediction",
            "Rank correlation of divergences with retrieval and gap",
            "Spearman's rank correlation of the divergence of test rows after training with R@1 and gap, within a data "
            "set (top) or within an objective on a data set (bottom), with 95 % bootstrap intervals over runs.",
            panels,
        ),
        Table(
            ["over training", *OUTCOMES.values()],
            table,
            "Mean rank correlation over the evaluations of a run [95 % t-interval over runs]. Most quantities change "
            "monotonically during training, so high correlations are expected.",
        ),
    ]


STUDY = Study(
    name="divergence",
    title="Hölder divergence by estimator and bandwidth",
    plan=plan,
    analyse=analyse,
    page=page,
    answer=answer,
    epochs=EPOCHS,
)
