"""Measure the sensitivity of UniAlign to the weights of its terms."""

from collections.abc import Mapping, Sequence

from research._closed_forms import closed_form_arms, closed_form_family, closed_form_section
from research._figures import UNTUNED, best_arm, metric_table, metric_tiles, verdict_table
from research._plan import Arm, Family, Options, Plan, Study
from research._read import (
    GEOMETRY,
    Results,
    completed,
    label,
    mean_of,
    metric_label,
    primary_metrics,
    scale_of,
    seed_count,
)
from research._settings import base
from research.pages import Figure, Mark, Section, Table, figure, scatter

__all__ = ["STUDY"]

EPOCHS = 30
MODALITIES = ("image", "drawing", "text", "speech")
ALIGNMENT = (0.25, 0.5, 1.0, 1.5, 2.0)
UNIFORMITY = (0.25, 0.5, 1.0, 2.0)
TUPLE = (0.0, 0.1, 0.3, 1.0)
CORE = "core-a1-u1"


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    arms = {
        _key(part, weights): _arm(part, weights, epochs)
        for part in _grids()
        for row in _weights(part)
        for weights in row
        if _key(part, weights) != CORE or part == "core"
    }
    families = tuple(
        Family(part, CORE, tuple(key for key, arm in arms.items() if key != CORE and arm.factors["part"] == part))
        for part in _grids()
    )
    closed = closed_form_arms("emoji", MODALITIES, factors={"part": "closed"}, anchor="text")
    return Plan(arms=(*arms.values(), *closed), families=(*families, closed_form_family(CORE)))


def _grids() -> dict[str, tuple[tuple[str, Sequence[float]], tuple[str, Sequence[float]]]]:
    return {
        "core": (("alignment", ALIGNMENT), ("uniformity", UNIFORMITY)),
        "tuple": (("centroid", TUPLE), ("volume", TUPLE)),
    }


def _weights(part: str) -> list[list[dict[str, float]]]:
    (first, rows), (second, columns) = _grids()[part]
    return [[{first: row, second: column} for column in columns] for row in rows]


def _key(part: str, weights: Mapping[str, float]) -> str:
    """Both grids share the arm `CORE`, in which the tuple weights are 0."""
    if part == "tuple" and not any(weights.values()):
        return CORE
    return "-".join([part, *(f"{term[0]}{weight:g}" for term, weight in weights.items())])


def _arm(part: str, weights: Mapping[str, float], epochs: int) -> Arm:
    options = {f"{term}_weight": weight for term, weight in weights.items()}
    return Arm(
        key=_key(part, weights),
        label=", ".join(f"{term} {weight:g}" for term, weight in weights.items()),
        data="emoji",
        train=base("emoji", "unialign", MODALITIES, epochs=epochs, **options),
        factors={"part": part, **weights},
        anchor="text",
    )


def page(results: Results) -> list[Section]:
    ratio = (
        f"{UNTUNED} Mainly the ratio of both weights matters, since a common factor only scales the loss, and Adam "
        "with gradient clipping is nearly invariant to this scale."
    )
    core = _parts(results, "core")
    core.insert(2, _trade(results, _arms("core")))
    return [
        Section("core", "Alignment and uniformity", [ratio, *core]),
        Section("tuple", "Centroid uniformity and volume", _parts(results, "tuple")),
        *closed_form_section(results, [CORE]),
    ]


def _arms(part: str) -> list[str]:
    return [_key(part, weights) for row in _weights(part) for weights in row]


def _parts(results: Results, part: str) -> list[str | Table | Figure]:
    (first, rows), (second, columns) = _grids()[part]
    panels = metric_tiles(
        results,
        [[_key(part, weights) for weights in row] for row in _weights(part)],
        GEOMETRY,
        [f"{value:g}" for value in rows],
        [f"{value:g}" for value in columns],
        row_label=first,
        column_label=f"{second} weight",
    )
    title = f"{first.capitalize()} weight by {second} weight"
    note = f"{', '.join(MODALITIES)} of emoji, anchor text; means over {seed_count(results)}."
    arms = _arms(part)
    return [
        figure(f"weights-{part}", title, note, panels, columns=3),
        _best(results, arms),
        metric_table(results, arms, family=part, first_column="weights"),
        verdict_table(results, part),
    ]


def _best(results: Results, arms: Sequence[str]) -> str:
    best = {metric: best_arm(results, arms, metric) for metric in primary_metrics(results)}
    named = [f"{label(results, arm)} ({results['metrics'][metric]['label']})" for metric, arm in best.items() if arm]
    return f"Best arms: {'; '.join(named)}. Selected on the test split, their means are slightly optimistic."


def _trade(results: Results, keys: Sequence[str]) -> Figure:
    factors = results["study"]["factors"]
    ratios: dict[float, list[str]] = {}
    for arm in completed(results, keys):
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
        "Each point is the mean over seeds for a pair of weights; marks show the ratio of alignment to uniformity.",
        panels,
        heading="Trade-offs by the ratio of the weights",
        legend=list(arms),
    )


STUDY = Study(name="weights", title="Sensitivity to the weights of the terms", plan=plan, page=page, epochs=EPOCHS)
