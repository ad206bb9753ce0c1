"""Build the page of the study `conflict` from the content of its results.json."""

from collections.abc import Iterator
from typing import Any

from research._closed_forms import closed_form_section
from research._estimates import Interval, seed_interval
from research._figures import format_interval, minus, seed_series, trials_table
from research._read import Results, completed, evaluations, label, run_metric
from research.pages import Dot, Mark, Panel, Point, Section, Series, Table, dots, figure, lines, scatter
from unialign.losses import display_name

__all__ = ["COMPARED", "MOST", "OBJECTIVES", "OUTCOMES", "answer", "page"]

# The arms that are compared with the closed forms.
COMPARED = ("trajectory-unialign", "trajectory-infonce")
MOST = {"digits": 6, "emoji": 8}
OBJECTIVES = ("unialign", "infonce")
OUTCOMES = {"recall@1": "R@1", "modality_gap_debiased": "debiased gap"}
_MEANS = "Means over seeds [95 % t-interval]."


def page(results: Results) -> list[Section]:
    return [
        Section("sweep", "Conflict against the number of modalities", _sweep_parts(results)),
        Section("assumptions", "Assumptions of the propositions", _assumption_parts(results)),
        Section("trajectories", "Conflict over training", _trajectory_parts(results)),
        Section("prediction", "Correlation with retrieval and gap", _prediction_parts(results)),
        *closed_form_section(results, COMPARED),
        Section("tuning", "Tuned settings", [trials_table(results)]),
    ]


def answer(results: Results) -> list[str]:
    found = []
    for data in MOST:
        for objective in OBJECTIVES:
            arms = _sweep_arms(results, data, objective)
            if not arms:
                continue
            few, many = min(arms), max(arms)
            ends = [
                f"{name} {_at(results, arms[few], name).mean:.2f} to {_at(results, arms[many], name).mean:.2f}"
                for name in ("zeta", "chi")
            ]
            found.append(f"{data}, {display_name(objective)}, from M = {few} to {many}: {' and '.join(ends)}.")
    for c in results["study"]["analysis"]["correlations"]:
        if (c["part"], c["when"], c["predictor"]) == ("sweep", "end", "zeta"):
            outcome, rho = OUTCOMES[c["outcome"]], format_interval(c, decimals=2)
            found.append(f"Rank correlation of zeta with {outcome} of trained spaces: {rho}.")
    return found


def _sweep_arms(results: Results, data: str, objective: str) -> dict[int, str]:
    factors = results["study"]["factors"]
    wanted = {"part": "sweep", "data": data, "objective": objective}
    return {factors[arm]["M"]: arm for arm in completed(results) if wanted.items() <= factors[arm].items()}


def _at(results: Results, arm: str, name: str, when: str = "end") -> Interval:
    by_step = evaluations(results, arm, f"conflict/{name}")
    return seed_interval(by_step[min(by_step) if when == "start" else max(by_step)] if by_step else [])


def _sweep_parts(results: Results) -> list[Any]:
    ends = {o: Mark(f"{display_name(o)}, trained", i) for i, o in enumerate(OBJECTIVES)}
    start = Mark("untrained", 6)  # Untrained spaces depend only on the seed, not on the objective.
    bounds = {o: Mark(f"{display_name(o)}, lower bound", i, "dashed") for i, o in enumerate(OBJECTIVES)}
    expected = {o: Mark(f"{display_name(o)}, expected", i + 2, "dashed") for i, o in enumerate(OBJECTIVES)}

    def series(data: str, objective: str, name: str, mark: Mark, when: str = "end") -> Series:
        at = {m: _at(results, arm, name, when) for m, arm in sorted(_sweep_arms(results, data, objective).items())}
        return Series(mark, [Point(m, *i) if mark.dash == "solid" else Point(m, i.mean) for m, i in at.items()])

    def panel(data: str, name: str, title: str, lowest: float) -> Panel:
        drawn = [series(data, OBJECTIVES[0], name, start, "start")]
        drawn += [series(data, o, name, mark) for o, mark in ends.items()]
        if name in ("zeta", "chi"):
            drawn += [series(data, o, f"{name}_bound", mark) for o, mark in bounds.items()]
        if name == "zeta":
            drawn += [series(data, o, "zeta_expected", mark) for o, mark in expected.items()]
        ticks = range(2, MOST[data] + 1)
        return lines(f"{title} on {data}", drawn, x_label="modalities M", x_ticks=ticks, within=(lowest, 1.0))

    others = (
        ("zeta_neg", "zeta, negatives only", -1.0),
        ("zeta_neg_tan", "zeta, negatives, tangential", -1.0),
        ("net_ratio", "net force ratio", 0.0),
    )
    columns = ("zeta", "zeta_bound", "zeta_expected", "zeta_neg", "zeta_neg_tan", "net_ratio", "chi", "chi_bound")
    head = ("zeta", "its bound", "expected", "zeta neg.", "tangential", "net ratio", "chi", "its bound", "R@1, %")
    rows = [
        [name, *(format_interval(_at(results, arm, c)) for c in columns), _recall(results, arm)]
        for name, arm in _sweep_rows(results)
    ]
    return [
        figure(
            "conflict-sweep",
            "zeta and chi against M, with the bounds of Propositions 2.2 and 2.3",
            "Means over seeds with 95 % t-intervals; each seed adds modalities in a different order. The bound of "
            "zeta assumes positive c and is omitted where a measured c is not positive. “Expected” is zeta computed "
            "from the measured c and the residuals, including their correlation between modalities.",
            [panel(data, name, name, low) for data in MOST for name, low in (("zeta", -1.0), ("chi", 0.0))],
            heading="Conflict against the number of modalities",
            legend=[start, *ends.values(), *bounds.values(), *expected.values()],
        ),
        figure(
            "conflict-negatives",
            "Conflict of the negatives, its tangential part, and the net force ratio",
            "",
            [panel(data, *other) for data in MOST for other in others],
            heading="Conflict of the negatives",
            columns=3,
            legend=[start, *ends.values()],
        ),
        Table(["trained", *head], rows, _MEANS),
    ]


def _sweep_rows(results: Results) -> Iterator[tuple[str, str]]:
    for data in MOST:
        for objective in OBJECTIVES:
            for m, arm in sorted(_sweep_arms(results, data, objective).items()):
                yield f"{data}, {display_name(objective)}, M = {m}", arm


def _recall(results: Results, arm: str) -> str:
    return f"{100 * seed_interval(run_metric(results, arm, 'recall@1')).mean:.1f}"


def _assumption_parts(results: Results) -> list[Any]:
    columns = [(name, when) for name in ("residual_correlation", "frac_c_nonpos") for when in ("start", "end")]
    rows = [
        [name, *(format_interval(_at(results, arm, *column)) for column in columns)]
        for name, arm in _sweep_rows(results)
    ]
    head = ["", "residual correlation, untrained", "trained", "fraction of c not above 0, untrained", "trained"]
    return [
        "Proposition 2.2 assumes that the residuals of different modalities are uncorrelated and that every c is above "
        "a positive constant. The bound does not apply where a c is not positive.",
        Table(head, rows, _MEANS),
    ]


def _trajectory_marks(results: Results) -> dict[str, Mark]:
    factors = results["study"]["factors"]
    arms = [arm for arm in completed(results) if factors[arm]["part"] == "trajectory"]
    return {arm: Mark(label(results, arm), i) for i, arm in enumerate(arms)}


def _trajectory_parts(results: Results) -> list[Any]:
    marks = _trajectory_marks(results)
    titles = {
        "zeta": "zeta",
        "zeta_neg": "zeta, negatives only",
        "zeta_neg_tan": "zeta, negatives, tangential",
        "net_ratio": "net force ratio",
        "chi": "chi",
        "residual_correlation": "residual correlation",
    }
    panels = []
    for name, title in titles.items():
        measured = {mark: evaluations(results, arm, f"conflict/{name}") for arm, mark in marks.items()}
        series = [seed_series(mark, by_step, band=False) for mark, by_step in measured.items()]
        panels.append(lines(title, series, x_label="step"))
    rows = []
    for arm in marks:
        gap = seed_interval(run_metric(results, arm, "modality_gap_debiased")).mean
        cells = [format_interval(_at(results, arm, name)) for name in list(titles)[:5]]
        rows.append([label(results, arm), *cells, _recall(results, arm), f"{gap:.3f}"])
    head = ["objective", "zeta", "zeta neg.", "tangential", "net ratio", "chi", "R@1, %", "debiased gap"]
    return [
        figure(
            "conflict-trajectories",
            "Conflict over training, for every objective",
            "Image, text and speech of emoji, anchor text; means over seeds. All forces are those of InfoNCE at "
            "temperature 0.07, for every objective.",
            panels,
            heading="Conflict over training",
            columns=3,
            legend=list(marks.values()),
        ),
        Table(head, rows, "At the end of training; means over seeds [95 % t-interval]."),
    ]


def _prediction_parts(results: Results) -> list[Any]:
    found = results["study"]["analysis"].get("correlations", [])
    panels = []
    for part, title in (("sweep", "sweep"), ("trajectory", "trajectories")):
        for outcome, short in OUTCOMES.items():
            rows = [
                Dot(f"{c['predictor']}, {when}", *Interval.read(c), number=0 if when == "end" else 1)
                for when in ("early", "end")
                for c in found
                if (c["part"], c["outcome"], c["when"]) == (part, outcome, when)
            ]
            panels.append(dots(f"with {short}, {title}", rows, reference=0.0, write=lambda v: minus(f"{v:.2f}")))
    marks = _trajectory_marks(results)
    clouds = []
    for name in ("zeta", "zeta_neg_tan"):
        points = {}
        for arm, mark in marks.items():
            by_step = evaluations(results, arm, f"conflict/{name}")
            recall = [100 * value for value in run_metric(results, arm, "recall@1")]
            points[mark] = list(zip(by_step[max(by_step)], recall, strict=True))
        key = ("trajectory", "end", name, "recall@1")
        rho = [c for c in found if (c["part"], c["when"], c["predictor"], c["outcome"]) == key]
        note = f"rank correlation {format_interval(rho[0])}" if rho else ""
        clouds.append(scatter(f"R@1 against {name}", points, x_label=f"{name} at the end", y_label="R@1, %", note=note))
    return [
        figure(
            "conflict-prediction",
            "Rank correlation of conflict measures with metrics of the trained space",
            "Spearman's rank correlation within each data set and M, with 95 % bootstrap intervals over runs. “Early” "
            "is after 8 % of the steps. A correlation is not significant if its interval includes 0 (dashed).",
            panels,
            heading="Rank correlations within data set and M",
        ),
        figure(
            "conflict-scatter",
            "R@1 against conflict at the end of training",
            "",
            clouds,
            heading="R@1 against conflict, one point per run",
            legend=list(marks.values()),
        ),
    ]
