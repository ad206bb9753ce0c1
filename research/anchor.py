"""Measure the effect of the anchor on retrieval for each direction and modality."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from research._closed_forms import closed_form_arms, closed_form_family, closed_form_section, is_closed_form
from research._estimates import seed_interval
from research._figures import UNTUNED, format_seeds, metric_table, verdict_table
from research._plan import Arm, EvalHook, Family, Options, Plan, Study
from research._read import Results, completed, evaluations, label, mean_recall, seed_count
from research._settings import base
from research.pages import Dot, Mark, Panel, Section, Table, dots, figure, tiles
from unialign.losses import display_name as objective_label

__all__ = ["STUDY"]

EPOCHS = 40
MODALITIES = ("image", "drawing", "text", "keywords", "speech")
OBJECTIVES = ("unialign", "infonce")
TARGETS = {"unialign": (*MODALITIES, "all", "centroid"), "infonce": (*MODALITIES, "all")}


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    arms = tuple(
        Arm(
            key=_key(objective, anchor),
            label=f"{objective_label(objective)}, {anchor}",
            data="emoji",
            train=base("emoji", objective, MODALITIES, epochs=epochs, anchor=anchor),
            factors={"objective": objective, "anchor": anchor},
            eval_hook=EvalHook("modalities", points=2),
        )
        for objective in OBJECTIVES
        for anchor in TARGETS[objective]
    )
    families = [
        Family(objective, _key(objective, "all"), tuple(_key(objective, a) for a in TARGETS[objective] if a != "all"))
        for objective in OBJECTIVES
    ]
    families += [
        Family(f"same-{anchor}", _key("unialign", anchor), (_key("infonce", anchor),)) for anchor in TARGETS["infonce"]
    ]
    families += [closed_form_family(_key(objective, "all")) for objective in OBJECTIVES]
    closed = closed_form_arms("emoji", MODALITIES, factors={"objective": None, "anchor": None})
    return Plan(arms=(*arms, *closed), families=tuple(families))


def _key(objective: str, anchor: str) -> str:
    return f"{objective}-{anchor}"


# --- analysis across arms -------------------------------------------------------------------------------------------


def analyse(results: Results) -> dict[str, Any]:
    return {arm: _by_direction(results, arm) for arm in _trained(results)}


def _trained(results: Results) -> list[str]:
    return [arm for arm in completed(results) if not is_closed_form(results, arm)]


def _by_direction(results: Results, arm: str) -> dict[str, Any]:
    anchor = results["study"]["factors"][arm]["anchor"]
    every = list(permutations(MODALITIES, 2))
    touching = {m: [pair for pair in every if m in pair] for m in MODALITIES}
    by_modality = {m: mean_recall(results, arm, touching[m]) for m in MODALITIES}
    each = list(zip(*(mean_recall(results, arm, [pair]) for pair in every), strict=True))
    served = list(zip(*by_modality.values(), strict=True))
    found: dict[str, Any] = {
        "worst": [min(values) for values in each],
        "worst_direction": "->".join(every[min(range(len(every)), key=lambda i: math.fsum(seed[i] for seed in each))]),
        "spread": [max(values) - min(values) for values in served],
        "modalities": by_modality,
        "effective_rank": {m: list(_last(results, arm, f"modality/{m}/effective_rank")) for m in MODALITIES},
    }
    if anchor in MODALITIES:
        found["with"] = mean_recall(results, arm, touching[anchor])
        found["without"] = mean_recall(results, arm, [pair for pair in every if anchor not in pair])
    return found


def _last(results: Results, arm: str, name: str) -> Sequence[float | None]:
    by_step = evaluations(results, arm, name)
    return by_step[max(by_step)] if by_step else []


# --- the page -------------------------------------------------------------------------------------------------------


def page(results: Results) -> list[Section]:
    arms = _trained(results)
    sections = [
        Section("retrieval", "R@1 with the anchor, without it, and in the worst direction", _retrieval(results, arms)),
        Section("modalities", "R@1 by modality", _modalities(results)),
    ]
    for objective in OBJECTIVES:
        own = [_key(objective, anchor) for anchor in TARGETS[objective]]
        parts = [metric_table(results, own, family=objective), verdict_table(results, objective)]
        sections.append(Section(f"verdicts-{objective}", f"{objective_label(objective)}: against all pairs", parts))
    same = [_same(results, anchor) for anchor in TARGETS["infonce"]]
    rows = [row for table in same for row in table.rows]
    note = (
        "Differences are UniAlign minus InfoNCE [95 % interval], paired on items and seeds. Verdicts are "
        "Holm-corrected within a row."
    )
    sections.append(
        Section(
            "same", "UniAlign against InfoNCE with the same anchor", [Table(["anchor", *same[0].head[1:]], rows, note)]
        )
    )
    return [*sections, *closed_form_section(results, [_key(objective, "all") for objective in OBJECTIVES])]


def _same(results: Results, anchor: str) -> Table:
    table = verdict_table(results, f"same-{anchor}")
    return Table(table.head, [[anchor, *row[1:]] for row in table.rows])


def _retrieval(results: Results, arms: Sequence[str]) -> list[Any]:
    found = results["study"]["analysis"]
    factors = results["study"]["factors"]
    titles = {
        "with": "R@1, directions with the anchor, %",
        "without": "R@1, directions without it, %",
        "worst": "R@1, worst direction, %",
        "spread": "R@1, best minus worst modality, %",
    }
    panels: list[Panel] = []
    for name, title in titles.items():
        dot_rows = [
            Dot(
                label(results, arm),
                *seed_interval(found[arm][name]).scaled(100),
                number=OBJECTIVES.index(factors[arm]["objective"]),
            )
            for arm in arms
            if name in found[arm]
        ]
        panels.append(dots(title, dot_rows, write=lambda value: f"{value:.1f}"))
    table = []
    for arm in arms:
        cells = (format_seeds(found[arm].get(name, []), scale=100, decimals=1) for name in titles)
        table.append([label(results, arm), *cells, found[arm]["worst_direction"].replace("->", " → ")])
    return [
        f"{UNTUNED} The temperature is 0.07.",
        figure(
            "anchor-retrieval",
            "R@1 with the anchor, without it, and in the worst direction",
            f"All five modalities of emoji; means of {seed_count(results)} with 95 % t-intervals. "
            "Directions that include a difficult anchor are difficult, so compare objectives with the same anchor.",
            panels,
            heading="R@1 by anchor",
            legend=_marks(),
        ),
        Table(
            [
                "arm",
                "with the anchor, %",
                "without it, %",
                "worst direction, %",
                "spread, %",
                "worst direction on average",
            ],
            table,
            "R@1, means over seeds [95 % t-interval]. The R@1 of a modality is the mean over all directions that "
            "include it; the spread is the difference between the largest and the smallest R@1 of a modality.",
        ),
    ]


def _marks() -> list[Mark]:
    return [Mark(objective_label(objective), i) for i, objective in enumerate(OBJECTIVES)]


def _modalities(results: Results) -> list[Any]:
    found = results["study"]["analysis"]
    panels = []
    for name, title, scale in (("modalities", "R@1, %", 100), ("effective_rank", "effective rank", 1)):
        for i, objective in enumerate(OBJECTIVES):
            anchors = [a for a in TARGETS[objective] if _key(objective, a) in found]
            values = [
                [scale * seed_interval(found[_key(objective, a)][name][m]).mean for m in MODALITIES] for a in anchors
            ]
            panels.append(
                tiles(
                    f"{objective_label(objective)}: {title}",
                    anchors,
                    MODALITIES,
                    values,
                    row_label="anchor",
                    column_label="modality",
                    write=lambda value: f"{value:.1f}",
                    number=i,
                )
            )
    return [
        figure(
            "anchor-modalities",
            "R@1 and effective rank of each modality by anchor",
            "Means over seeds. The R@1 of a modality is the mean over all directions that include it. Its effective "
            "rank is the exponential of the entropy of the spectrum of its test rows.",
            panels,
            heading="Each modality by anchor",
        )
    ]


STUDY = Study(
    name="anchor",
    title="Effect of the anchor",
    plan=plan,
    analyse=analyse,
    page=page,
    epochs=EPOCHS,
)
