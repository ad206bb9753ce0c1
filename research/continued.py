"""Continue the training of an InfoNCE space at a small learning rate, as in the paper."""

from collections.abc import Mapping
from typing import Any

from research._closed_forms import closed_form_arms, closed_form_family, closed_form_section, is_closed_form
from research._figures import UNTUNED, dot_panel, metric_table, verdict_table
from research._plan import Arm, Family, Options, Plan, Study
from research._read import GEOMETRY, Results, completed, seed_count
from research._settings import HEADS, base
from research.pages import Mark, Section, figure

__all__ = ["STUDY"]

EPOCHS = 40
MODALITIES = ("image", "drawing", "text", "speech")
PARENT = "parent"
# The learning rates are fractions of the learning rate of the parent.
RATES = {"small": 0.01, "larger": 0.1}
# Key -> objective, label and options.
LOSSES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "infonce": ("infonce", "InfoNCE", {}),
    "balanced": ("unialign", "balanced", {}),
    "balanced-stop": ("unialign", "balanced, held", {"stop_gradient": "anchor"}),
    "balanced-volume": ("unialign", "balanced, volume", {"volume_weight": 1.0}),
    "paper": ("unialign", "paper", {"preset": "paper"}),
    "paper-stop": ("unialign", "paper, held", {"preset": "paper", "stop_gradient": "anchor"}),
    "gram": ("gram", "GRAM", {}),
}


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    parent = Arm(
        key=PARENT,
        label="InfoNCE, not continued",
        data="emoji",
        train=base("emoji", "infonce", MODALITIES, epochs=epochs),
        factors={"loss": PARENT, "rate": None},
        anchor="text",
    )
    continued = [
        Arm(
            key=_key(loss, rate),
            label=f"{title}, lr/{1 / fraction:.0f}",
            data="emoji",
            train=base("emoji", objective, MODALITIES, epochs=max(1, epochs // 2), **settings).override(
                {"lr": fraction * HEADS["emoji"]["lr"]}
            ),
            factors={"loss": loss, "rate": rate},
            anchor="text",
            init_from=PARENT,
        )
        for rate, fraction in RATES.items()
        for loss, (objective, title, settings) in LOSSES.items()
    ]
    families = [Family(rate, _key("infonce", rate), _baselines(rate)) for rate in RATES]
    families += [closed_form_family(first) for first in _compared()]
    closed = closed_form_arms("emoji", MODALITIES, factors={"loss": None, "rate": None}, anchor="text")
    return Plan(arms=(parent, *continued, *closed), families=tuple(families))


def _compared() -> list[str]:
    """Return the arms that are compared with the closed forms."""
    return [PARENT, _key("infonce", "larger"), _key("balanced", "larger")]


def _key(loss: str, rate: str) -> str:
    return f"{loss}-{rate}"


def _baselines(rate: str) -> tuple[str, ...]:
    return tuple(_key(loss, rate) for loss in LOSSES if loss != "infonce")


def page(results: Results) -> list[Section]:
    factors = results["study"]["factors"]
    arms = [arm for arm in completed(results) if not is_closed_form(results, arm)]
    order = [PARENT, *RATES]
    marks = [
        Mark("parent", 0),
        *(Mark(f"continued, {fraction:g} of its rate", i + 1) for i, fraction in enumerate(RATES.values())),
    ]

    def number(arm: str) -> int:
        return order.index(factors[arm]["rate"] or PARENT)

    panels = [
        dot_panel(results, arms, metric, number=number, reference=PARENT)
        for metric in GEOMETRY
        if metric in results["metrics"]
    ]
    sections = [
        Section(
            "metrics",
            "Metrics after continuing",
            [
                f"{UNTUNED} The temperature is 0.07. InfoNCE is trained for {_epochs(results)} epochs, and each arm "
                f"continues for {max(1, _epochs(results) // 2)} epochs. “Held” means that the alignment has no "
                "gradient with respect to the anchor, “volume” that the volume weight is 1, and “lr/100” that the "
                f"learning rate is 1/100 of that of InfoNCE, {HEADS['emoji']['lr']:g}.",
                figure(
                    "continued-metrics",
                    "Metrics after continuing an InfoNCE space",
                    f"{', '.join(MODALITIES)} of emoji, anchor text, {seed_count(results)}; 95 % "
                    "intervals over items and seeds. Dashed: InfoNCE before it is continued.",
                    panels,
                    heading="After continuing an InfoNCE space",
                    columns=3,
                    legend=marks,
                ),
            ],
        )
    ]
    for rate, fraction in RATES.items():
        own = [PARENT, *(_key(loss, rate) for loss in LOSSES)]
        parts = [metric_table(results, own, GEOMETRY, family=rate), verdict_table(results, rate)]
        title = f"At {fraction:g} of the parent's learning rate, against continued InfoNCE"
        sections.append(Section(f"verdicts-{rate}", title, parts))
    return [*sections, *closed_form_section(results, _compared())]


def _epochs(results: Results) -> int:
    return int(results["objectives"][PARENT]["settings"]["epochs"])


STUDY = Study(
    name="continued",
    title="Continuing an InfoNCE space at a small learning rate",
    plan=plan,
    page=page,
    epochs=EPOCHS,
)
