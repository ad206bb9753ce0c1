"""Measure the sensitivity of UniAlign to the weights of its terms.

Two grids on the four modalities that every item of emoji has: alignment by uniformity weight, and the weights of the
two tuple terms, centroid uniformity and volume, with the other two weights at 1.
"""

import itertools
from collections.abc import Sequence

from research._figures import UNTUNED, best_arm, metric_table, metric_tiles, verdict_table
from research._plan import Arm, Family, Options, Plan, Study
from research._read import GEOMETRY, Results, completed, label, mean_of, metric_label, primary_metrics, scale_of
from research._settings import base
from research.pages import Figure, Mark, Section, figure, scatter

__all__ = ["STUDY"]

EPOCHS = 30
MODALITIES = ("image", "drawing", "text", "speech")
ALIGNMENT = (0.25, 0.5, 1.0, 1.5, 2.0)
UNIFORMITY = (0.25, 0.5, 1.0, 2.0)
TUPLE = (0.0, 0.1, 0.3, 1.0)
CORE = "core-a1-u1"


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    core = _grid_arms("core", ("alignment", ALIGNMENT), ("uniformity", UNIFORMITY), epochs)
    # With both weights 0, the arm is the core at its default weights.
    tuples = [arm for arm in _grid_arms("tuple", ("centroid", TUPLE), ("volume", TUPLE), epochs) if arm.key != CORE]
    families = (
        Family("core", CORE, tuple(arm.key for arm in core if arm.key != CORE)),
        Family("tuple", CORE, tuple(arm.key for arm in tuples)),
    )
    return Plan(arms=(*core, *tuples), families=families)


def _grid_arms(
    part: str, rows: tuple[str, Sequence[float]], columns: tuple[str, Sequence[float]], epochs: int
) -> list[Arm]:
    """Return an arm for every pair of weights of two terms."""
    arms = []
    for first, second in itertools.product(rows[1], columns[1]):
        weights = {rows[0]: first, columns[0]: second}
        options = {f"{term}_weight": weight for term, weight in weights.items()}
        arms.append(
            Arm(
                key=_KEYS[part](first, second),
                label=", ".join(f"{term} {weight:g}" for term, weight in weights.items()),
                data="emoji",
                train=base("emoji", "unialign", MODALITIES, epochs=epochs, **options),
                factors={"part": part, **weights},
                anchor="text",
            )
        )
    return arms


def _core(alignment: float, uniformity: float) -> str:
    return f"core-a{alignment:g}-u{uniformity:g}"


def _tuple(centroid: float, volume: float) -> str:
    """Return the arm of two weights; with both 0 it is the core at its default weights, which is trained once."""
    return f"tuple-c{centroid:g}-v{volume:g}" if centroid or volume else CORE


_KEYS = {"core": _core, "tuple": _tuple}


def page(results: Results) -> list[Section]:
    core = [[_core(a, u) for u in UNIFORMITY] for a in ALIGNMENT]
    tuples = [[_tuple(c, v) for v in TUPLE] for c in TUPLE]
    return [
        Section(
            "core",
            "Alignment and uniformity",
            [
                f"{UNTUNED} Mainly the ratio of the two weights matters, since a common factor only scales the loss, "
                "and Adam with gradient clipping is nearly invariant to this scale.",
                _grid(
                    results,
                    "weights-core",
                    "Alignment weight by uniformity weight",
                    core,
                    ("alignment", ALIGNMENT),
                    ("uniformity weight", UNIFORMITY),
                ),
                _best(results, core),
                _trade(results, core),
                metric_table(results, _flat(core), family="core", first_column="weights"),
                verdict_table(results, "core"),
            ],
        ),
        Section(
            "tuple",
            "Centroid uniformity and volume",
            [
                _grid(
                    results,
                    "weights-tuple",
                    "Centroid weight by volume weight",
                    tuples,
                    ("centroid", TUPLE),
                    ("volume weight", TUPLE),
                ),
                _best(results, tuples),
                metric_table(results, _flat(tuples), family="tuple", first_column="weights"),
                verdict_table(results, "tuple"),
            ],
        ),
    ]


def _flat(grid: Sequence[Sequence[str]]) -> list[str]:
    return [arm for row in grid for arm in row]


def _grid(
    results: Results,
    name: str,
    title: str,
    arms: Sequence[Sequence[str]],
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
) -> Figure:
    labels = {"row_label": rows[0], "column_label": columns[0]}
    values = ([f"{value:g}" for value in side[1]] for side in (rows, columns))
    note = f"{', '.join(MODALITIES)} of emoji, anchor text; means over {len(results['protocol']['seeds'])} seeds."
    return figure(name, title, note, metric_tiles(results, arms, GEOMETRY, *values, **labels), columns=3)


def _best(results: Results, grid: Sequence[Sequence[str]]) -> str:
    """Name the best arm of a grid by each primary metric."""
    best = {metric: best_arm(results, _flat(grid), metric) for metric in primary_metrics(results)}
    named = [f"{results['metrics'][metric]['label']}: {label(results, arm)}" for metric, arm in best.items() if arm]
    return f"Best mean by {'; '.join(named)}. They are chosen on the test split and therefore slightly optimistic."


def _trade(results: Results, grid: Sequence[Sequence[str]]) -> Figure:
    """Plot one metric against another with one point per arm, marked by the ratio of the weights."""
    factors = results["study"]["factors"]
    ratios: dict[float, list[str]] = {}
    for arm in completed(results, _flat(grid)):
        ratios.setdefault(factors[arm]["alignment"] / factors[arm]["uniformity"], []).append(arm)
    arms = {Mark(f"ratio {ratio:.3g}", i): ratios[ratio] for i, ratio in enumerate(sorted(ratios))}

    def points(x: str, y: str) -> dict[Mark, list[tuple[float, float]]]:
        def shown(arm: str, metric: str) -> float:
            return scale_of(results, metric) * mean_of(results, arm, metric)

        return {mark: [(shown(arm, x), shown(arm, y)) for arm in own] for mark, own in arms.items()}

    panels = [
        scatter(title, points(x, y), x_label=metric_label(results, x), y_label=metric_label(results, y))
        for title, x, y in (
            ("Retrieval against gap", "modality_gap_debiased", "recall@1"),
            ("Label mAP against retrieval", "recall@1", "label_map"),
        )
        if x in results["metrics"] and y in results["metrics"]
    ]
    return figure(
        "weights-trade",
        "Trade-offs by the ratio of alignment to uniformity",
        "One point per pair of weights, mean over seeds; equal marks have equal ratios of alignment to uniformity.",
        panels,
        heading="Trade-offs by the ratio of the weights",
        legend=list(arms),
    )


STUDY = Study(name="weights", title="Sensitivity to the weights of the terms", plan=plan, page=page, epochs=EPOCHS)
