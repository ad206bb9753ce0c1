"""Measure the sensitivity of UniAlign, InfoNCE and GRAM to the temperature."""

from collections.abc import Mapping
from typing import Any

from research._closed_forms import closed_form_arms, closed_form_family, closed_form_section
from research._figures import UNTUNED, metric_lines, metric_table, range_table, verdict_table
from research._plan import Arm, Family, Options, Plan, Study
from research._read import GEOMETRY, PRIMARY, Results, seed_count
from research._settings import base
from research.pages import Mark, Section, figure

__all__ = ["STUDY"]

EPOCHS = 40
MODALITIES = ("image", "drawing", "text", "speech")
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.4)
DEFAULT = 0.07
# Key -> objective, label, options, and fraction of the steps that train InfoNCE.
LINES: Mapping[str, tuple[str, str, Mapping[str, Any], float]] = {
    "unialign": ("unialign", "UniAlign", {}, 0.0),
    "unialign-half": ("unialign", "UniAlign, alignment weight 0.5", {"alignment_weight": 0.5}, 0.0),
    "infonce": ("infonce", "InfoNCE", {}, 0.0),
    "gram": ("gram", "GRAM after InfoNCE", {"temperature_mode": "fixed"}, 0.75),
}

# These lines, at the default temperature, are compared with the closed forms.
CLOSED_FORM_LINES = ("unialign", "infonce")


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    arms = []
    for line, (objective, title, settings, warm) in LINES.items():
        for temperature in TEMPERATURES:
            train = base("emoji", objective, MODALITIES, epochs=epochs, **settings, temperature=temperature)
            arms.append(
                Arm(
                    key=_key(line, temperature),
                    label=f"{title}, {temperature:g}",
                    data="emoji",
                    train=train.override({"infonce_warmup_ratio": warm}),
                    factors={"line": line, "temperature": temperature},
                    anchor="text",
                )
            )
    families = [
        Family(line, _key(line, DEFAULT), tuple(_key(line, t) for t in TEMPERATURES if t != DEFAULT)) for line in LINES
    ]
    arms += closed_form_arms("emoji", MODALITIES, factors={"line": None, "temperature": None}, anchor="text")
    families += [closed_form_family(_key(line, DEFAULT)) for line in CLOSED_FORM_LINES]
    return Plan(arms=tuple(arms), families=tuple(families))


def _key(line: str, temperature: float) -> str:
    return f"{line}-t{temperature:g}"


def page(results: Results) -> list[Section]:
    marks = {line: Mark(title, i) for i, (line, (_, title, _, _)) in enumerate(LINES.items())}
    # Space the temperatures equally, since their ratios are nearly equal.
    arms = {mark: {float(i): _key(line, t) for i, t in enumerate(TEMPERATURES)} for line, mark in marks.items()}
    x_ticks = {float(i): f"{t:g}" for i, t in enumerate(TEMPERATURES)}
    panels = metric_lines(results, arms, GEOMETRY, x_label="temperature", x_ticks=x_ticks)
    swept = {mark.label: {f"{t:g}": _key(line, t) for t in TEMPERATURES} for line, mark in marks.items()}
    sections = [
        Section(
            "metrics",
            "Metrics against the temperature",
            [
                f"{UNTUNED} GRAM's temperature is fixed here and learned by default.",
                figure(
                    "temperature-metrics",
                    "Metrics against the temperature",
                    f"{', '.join(MODALITIES)} of emoji, anchor text, {seed_count(results)}; 95 % "
                    "intervals over items and seeds.",
                    panels,
                    columns=3,
                    legend=list(marks.values()),
                ),
                range_table(
                    results,
                    swept,
                    PRIMARY,
                    first_column="objective",
                    note="Each cell shows the best mean, its temperature, and the range of the means over all "
                    "temperatures. The best mean is selected on the test split and is therefore slightly optimistic.",
                ),
            ],
        )
    ]
    for line, mark in marks.items():
        keys = [_key(line, t) for t in TEMPERATURES]
        parts = [metric_table(results, keys, family=line), verdict_table(results, line)]
        sections.append(Section(f"table-{line}", f"{mark.label}: against temperature {DEFAULT:g}", parts))
    return [*sections, *closed_form_section(results, [_key(line, DEFAULT) for line in CLOSED_FORM_LINES])]


STUDY = Study(
    name="temperature",
    title="Sensitivity to the temperature",
    plan=plan,
    page=page,
    epochs=EPOCHS,
)
