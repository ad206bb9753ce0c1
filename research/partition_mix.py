"""Interpolate between InfoNCE and UniAlign."""

from research._closed_forms import closed_form_arms, closed_form_family, closed_form_section
from research._figures import UNTUNED, metric_lines, metric_table, verdict_table
from research._plan import Arm, Family, Options, Plan, Study
from research._read import GEOMETRY, PRIMARY, Results, completed, label, metric_label, run_metric, scale_of, seed_count
from research._settings import base
from research.pages import Mark, Section, Table, figure

__all__ = ["STUDY"]

EPOCHS = 40
MODALITIES = ("image", "drawing", "text", "speech")
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (1.0, 0.5)
ANCHORS = {"text": "anchor text", "all": "all pairs"}


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    mixed = [
        Arm(
            key=_key(anchor, weight, beta),
            label=f"beta {beta:g}, weight {weight:g}, {title}",
            data="emoji",
            train=base(
                "emoji",
                "unialign",
                MODALITIES,
                epochs=epochs,
                anchor=anchor,
                partition_mix=beta,
                alignment_weight=weight,
            ),
            factors={"anchor": anchor, "weight": weight, "beta": beta},
            anchor="text",
        )
        for anchor, title in ANCHORS.items()
        for weight in WEIGHTS
        for beta in BETAS
    ]
    baselines = [
        Arm(
            key=f"infonce-{anchor}",
            label=f"InfoNCE, {title}",
            data="emoji",
            train=base("emoji", "infonce", MODALITIES, epochs=epochs, anchor=anchor),
            factors={"anchor": anchor, "weight": None, "beta": None},
            anchor="text",
        )
        for anchor, title in ANCHORS.items()
    ]
    families = [Family(_family(anchor, weight), *_sides(anchor, weight)) for anchor in ANCHORS for weight in WEIGHTS]
    families += [closed_form_family(first) for first in _compared()]
    none = {"anchor": None, "weight": None, "beta": None}
    closed = closed_form_arms("emoji", MODALITIES, factors=none, anchor="text")
    return Plan(arms=(*mixed, *baselines, *closed), families=tuple(families))


def _compared() -> list[str]:
    """Return the arms that are compared with the closed forms."""
    return [_key("all", 1.0, beta) for beta in (BETAS[0], BETAS[-1])]


def _key(anchor: str, weight: float, beta: float) -> str:
    return f"{anchor}-w{weight:g}-beta{beta:g}"


def _family(anchor: str, weight: float) -> str:
    return f"{anchor}-w{weight:g}"


def _sides(anchor: str, weight: float) -> tuple[str, tuple[str, ...]]:
    first, *baselines = (_key(anchor, weight, beta) for beta in BETAS)
    return first, tuple(baselines)


def page(results: Results) -> list[Section]:
    marks = {
        (anchor, weight): Mark(f"{title}, alignment weight {weight:g}", 2 * i + j)
        for i, (anchor, title) in enumerate(ANCHORS.items())
        for j, weight in enumerate(WEIGHTS)
    }
    arms = {mark: {beta: _key(*which, beta) for beta in BETAS} for which, mark in marks.items()}
    panels = metric_lines(results, arms, GEOMETRY, x_label="beta: InfoNCE at 0, UniAlign at 1", x_ticks=BETAS)
    sections = [
        Section(
            "mix",
            "From InfoNCE to UniAlign",
            [
                f"{UNTUNED} The temperature is 0.07.",
                figure(
                    "partition_mix-metrics",
                    "Metrics against beta",
                    f"{', '.join(MODALITIES)} of emoji, {seed_count(results)}; 95 % intervals over items and seeds.",
                    panels,
                    columns=3,
                    legend=list(marks.values()),
                ),
            ],
        ),
        Section("identity", "Beta 0 is InfoNCE", [_identity(results)]),
    ]
    for (anchor, weight), mark in marks.items():
        family = _family(anchor, weight)
        own = completed(results, arms[mark].values())
        parts = [metric_table(results, own, family=family), verdict_table(results, family)]
        sections.append(Section(f"verdicts-{anchor}-{round(100 * weight)}", f"Against beta 0: {mark.label}", parts))
    return [*sections, *closed_form_section(results, _compared())]


def _identity(results: Results) -> Table:
    shown = [metric for metric in PRIMARY if metric in results["metrics"]]
    rows = []
    for anchor in ANCHORS:
        mixed, infonce = _key(anchor, 1.0, 0.0), f"infonce-{anchor}"
        if len(completed(results, (mixed, infonce))) < 2:
            continue
        cells = []
        for metric in shown:
            pairs = zip(run_metric(results, mixed, metric), run_metric(results, infonce, metric), strict=True)
            scale, most = scale_of(results, metric), max(abs(x - y) for x, y in pairs)
            cells.append(f"{scale * most:.{2 if scale == 100 else 5}f}")
        rows.append([label(results, infonce), *cells])
    return Table(
        ["beta 0, weight 1 and", *(metric_label(results, metric) for metric in shown)],
        rows,
        "Largest absolute difference over seeds. The two losses are equal up to rounding, which training amplifies.",
    )


STUDY = Study(
    name="partition_mix", title="Interpolating between InfoNCE and UniAlign", plan=plan, page=page, epochs=EPOCHS
)
