"""The page of the study `conflict`, from the content of its results.json."""

from collections.abc import Mapping
from typing import Any

from research._estimates import seed_interval
from research._figures import chosen_table, known, label, looks, run_metric, runs_of, sound
from research._sweeps import between, failed_sections
from research.pages import Dot, Figure, Mark, Panel, Place, Section, Series, Table, dots, lines, scatter, sheet
from unialign.losses import display_name as objective_label

__all__ = ["answer", "page"]

MOST = {"digits": 6, "emoji": 8}
OBJECTIVES = ("unialign", "infonce")
OUTCOMES = ("recall@1", "modality_gap_debiased")
_SHORT = {"recall@1": "R@1", "modality_gap_debiased": "debiased gap"}


def page(results: Mapping[str, Any]) -> list[Section]:
    return [
        Section("sweep", "Conflict against the number of modalities", _sweep_parts(results)),
        Section("assumptions", "Do the assumptions of the propositions hold?", _assumption_parts(results)),
        Section("trajectories", "From the untrained space to the end", _trajectory_parts(results)),
        Section("prediction", "Does it predict anything?", _prediction_parts(results)),
        Section("tuning", "What tuning chose", [chosen_table(results, list(results["study"]["factors"]))]),
        *failed_sections(results),
    ]


def answer(results: Mapping[str, Any]) -> list[str]:
    """How zeta and chi go with M, and what zeta goes with."""
    found = []
    for data in MOST:
        for objective in OBJECTIVES:
            arms = _arms(results, data, objective)
            if not arms:
                continue
            ends = {m: {name: _at(results, arms[m], name, "end")["mean"] for name in ("zeta", "chi")} for m in arms}
            few, many = min(ends), max(ends)
            said = [f"{name} {ends[few][name]:.2f} to {ends[many][name]:.2f}" for name in ("zeta", "chi")]
            found.append(f"{data}, {objective_label(objective)}, from M = {few} to {many}: {' and '.join(said)}.")
    for c in results["study"]["analysis"]["correlations"]:
        if (c["part"], c["when"], c["predictor"]) == ("sweep", "end", "zeta"):
            outcome = _SHORT[c["outcome"]]
            found.append(f"Rank correlation of zeta with {outcome} of finished spaces: {between(c, decimals=2)}.")
    return found


def _arms(results: Mapping[str, Any], data: str, objective: str) -> dict[int, str]:
    """M -> arm of the sweep."""
    factors = results["study"]["factors"]
    found = [
        arm
        for arm in sound(results, factors)
        if factors[arm]["part"] == "sweep" and (factors[arm]["data"], factors[arm]["objective"]) == (data, objective)
    ]
    return {factors[arm]["M"]: arm for arm in found}


def _at(results: Mapping[str, Any], arm: str, name: str, when: str) -> dict[str, float]:
    """A number of the first or the last look, with its interval over seeds."""
    by_step = looks(results, arm, f"conflict/{name}")
    return seed_interval(by_step[min(by_step) if when == "start" else max(by_step)]) if by_step else seed_interval([])


def _over_m(results: Mapping[str, Any], data: str, objective: str, name: str, when: str, mark: Mark) -> Series:
    places = []
    for m, arm in sorted(_arms(results, data, objective).items()):
        found = _at(results, arm, name, when)
        places.append(Place(m, found["mean"], found["low"], found["high"]))
    return Series(mark, places if mark.dash == "solid" else [Place(p.x, p.y) for p in places])


def _sweep_parts(results: Mapping[str, Any]) -> list[Any]:
    ends = {objective: Mark(f"{objective_label(objective)}, trained", i) for i, objective in enumerate(OBJECTIVES)}
    start = Mark("untrained", 6)  # the same spaces for both: the seed alone decides
    bounds = {o: Mark(f"{objective_label(o)}, lower bound", i, "dashed") for i, o in enumerate(OBJECTIVES)}
    expected = {o: Mark(f"{objective_label(o)}, expected", i + 2, "dashed") for i, o in enumerate(OBJECTIVES)}

    def panel(data: str, name: str, title: str, lowest: float) -> Panel:
        series = [_over_m(results, data, OBJECTIVES[0], name, "start", start)]
        series += [_over_m(results, data, o, name, "end", mark) for o, mark in ends.items()]
        if name in ("zeta", "chi"):
            series += [_over_m(results, data, o, f"{name}_bound", "end", mark) for o, mark in bounds.items()]
        if name == "zeta":
            series += [_over_m(results, data, o, "zeta_expected", "end", mark) for o, mark in expected.items()]
        ticks = range(2, MOST[data] + 1)
        return lines(f"{title} on {data}", series, x_label="modalities M", x_ticks=ticks, within=(lowest, 1.0))

    return [
        Figure(
            "conflict-sweep",
            "zeta and chi against M, with the bounds of Propositions 2.2 and 2.3",
            sheet(
                "conflict-sweep",
                "Conflict against the number of modalities",
                [panel(data, name, name, low) for data in MOST for name, low in (("zeta", -1.0), ("chi", 0.0))],
                legend=[start, *ends.values(), *bounds.values(), *expected.values()],
            ),
            "Means over seeds with 95 % t-intervals; every seed adds modalities in an order of its own. The bound of "
            "zeta is missing where a measured c is not above 0: there its assumption fails. Expected: zeta computed "
            "from the measured c, residuals and their correlation between modalities.",
        ),
        Figure(
            "conflict-negatives",
            "The same without the own positive, tangential, and the net force",
            sheet(
                "conflict-negatives",
                "Conflict without the own positive",
                [panel(data, *what) for data in MOST for what in _OTHERS],
                columns=3,
                legend=[start, *ends.values()],
            ),
        ),
        _sweep_table(results),
    ]


_OTHERS = (
    ("zeta_neg", "zeta, negatives only", -1.0),
    ("zeta_neg_tan", "zeta, negatives, tangential", -1.0),
    ("net_ratio", "net force ratio", 0.0),
)


def _sweep_table(results: Mapping[str, Any]) -> Table:
    columns = ("zeta", "zeta_bound", "zeta_expected", "zeta_neg", "zeta_neg_tan", "net_ratio", "chi", "chi_bound")
    rows = []
    for data in MOST:
        for objective in OBJECTIVES:
            for m, arm in sorted(_arms(results, data, objective).items()):
                recall = seed_interval(run_metric(results, arm, "recall@1"))["mean"]
                name = f"{data}, {objective_label(objective)}, M = {m}"
                rows.append([name, *(between(_at(results, arm, c, "end")) for c in columns), f"{100 * recall:.1f}"])
    head = [
        "trained",
        "zeta",
        "its bound",
        "expected",
        "zeta neg.",
        "tangential",
        "net ratio",
        "chi",
        "its bound",
        "R@1, %",
    ]
    return Table(head, rows, "Means over seeds [95 % t-interval].")


def _assumption_parts(results: Mapping[str, Any]) -> list[Any]:
    rows = []
    for data in MOST:
        for objective in OBJECTIVES:
            for m, arm in sorted(_arms(results, data, objective).items()):
                cells = [
                    between(_at(results, arm, name, when))
                    for name in ("residual_correlation", "frac_c_nonpos")
                    for when in ("start", "end")
                ]
                rows.append([f"{data}, {objective_label(objective)}, M = {m}", *cells])
    head = ["", "residual correlation, untrained", "trained", "share of c not above 0, untrained", "trained"]
    return [
        "Proposition 2.2 assumes that the residuals of different modalities are uncorrelated and that every c is above "
        "a positive constant. The bound says nothing where a c is not.",
        Table(head, rows, "Means over seeds [95 % t-interval]."),
    ]


def _trajectory_parts(results: Mapping[str, Any]) -> list[Any]:
    factors = results["study"]["factors"]
    arms = [arm for arm in sound(results, factors) if factors[arm]["part"] == "trajectory"]
    marks = {arm: Mark(label(results, arm), i) for i, arm in enumerate(arms)}
    panels = []
    for name, title in (
        ("zeta", "zeta"),
        ("zeta_neg", "zeta, negatives only"),
        ("zeta_neg_tan", "zeta, negatives, tangential"),
        ("net_ratio", "net force ratio"),
        ("chi", "chi"),
        ("residual_correlation", "residual correlation"),
    ):
        series = []
        for arm, mark in marks.items():
            found = {
                step: seed_interval(v)["mean"] for step, v in sorted(looks(results, arm, f"conflict/{name}").items())
            }
            series.append(Series(mark, [Place(step, mean) for step, mean in found.items()]))
        panels.append(lines(title, series, x_label="step"))
    columns = ("zeta", "zeta_neg", "zeta_neg_tan", "net_ratio", "chi")
    rows = []
    for arm in arms:
        recall, gap = (seed_interval(run_metric(results, arm, m))["mean"] for m in OUTCOMES)
        rows.append(
            [
                label(results, arm),
                *(between(_at(results, arm, c, "end")) for c in columns),
                f"{100 * recall:.1f}",
                f"{gap:.3f}",
            ]
        )
    head = ["objective", "zeta", "zeta neg.", "tangential", "net ratio", "chi", "R@1, %", "debiased gap"]
    return [
        Figure(
            "conflict-trajectories",
            "Conflict over training, for every objective",
            sheet("conflict-trajectories", "Conflict over training", panels, columns=3, legend=list(marks.values())),
            "Image, text and speech of emoji, anchor text; means over seeds. All forces are those of InfoNCE at "
            "temperature 0.07, whatever trained the space.",
        ),
        Table(head, rows, "At the end of training; means over seeds [95 % t-interval]."),
    ]


def _prediction_parts(results: Mapping[str, Any]) -> list[Any]:
    found = results["study"]["analysis"].get("correlations", [])
    panels = []
    for part, said in (("sweep", "sweep"), ("trajectory", "trajectories")):
        for outcome in OUTCOMES:
            rows = [
                Dot(
                    f"{c['predictor']}, {c['when']}",
                    known(c["mean"]),
                    known(c["low"]),
                    known(c["high"]),
                    0 if c["when"] == "end" else 1,
                )
                for when in ("early", "end")
                for c in found
                if (c["part"], c["outcome"], c["when"]) == (part, outcome, when)
            ]
            panels.append(
                dots(
                    f"with {_SHORT[outcome]}, {said}", rows, reference=0.0, write=lambda v: f"{v:.2f}".replace("-", "−")
                )
            )
    factors = results["study"]["factors"]
    arms = [arm for arm in sound(results, factors) if factors[arm]["part"] == "trajectory"]
    marks = {arm: Mark(label(results, arm), i) for i, arm in enumerate(arms)}
    clouds = []
    for name in ("zeta", "zeta_neg_tan"):
        points = {
            mark: [
                (known(run["looks"][-1].get(f"conflict/{name}")), 100 * known(run["metrics"].get("recall@1")))
                for run in runs_of(results, arm)
            ]
            for arm, mark in marks.items()
        }
        rho = next(
            (
                c
                for c in found
                if (c["part"], c["when"], c["predictor"], c["outcome"]) == ("trajectory", "end", name, "recall@1")
            ),
            None,
        )
        note = "" if rho is None else f"rank correlation {between(rho)}"
        clouds.append(scatter(f"R@1 against {name}", points, x_label=f"{name} at the end", y_label="R@1, %", note=note))
    return [
        Figure(
            "conflict-prediction",
            "Rank correlation of conflict numbers with the finished space",
            sheet("conflict-prediction", "Rank correlations within data set and M", panels),
            "Spearman's correlation with ranks taken within each data set and M; 95 % bootstrap intervals over runs. "
            "Early: after 8 % of the steps. An interval across the dashed line says that nothing is predicted.",
        ),
        Figure(
            "conflict-scatter",
            "Every run of the trajectories",
            sheet("conflict-scatter", "R@1 against conflict, a point a run", clouds, legend=list(marks.values())),
        ),
    ]
