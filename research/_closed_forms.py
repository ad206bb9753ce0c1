"""Closed forms as arms of a study, and the section that compares a trained arm with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from research._figures import metric_table, verdict_table
from research._plan import Arm, EvalHook, Family
from research._read import Results
from research.pages import Section
from unialign.config import CLOSED_FORMS, closed_form_config

__all__ = ["CLOSED_FORM_NOTE", "closed_form_arms", "closed_form_family", "closed_form_section", "is_closed_form"]

CLOSED_FORM_NOTE = "not trained; settings chosen on the validation split"


def closed_form_arms(
    data: str,
    modalities: Sequence[str],
    *,
    prefix: str = "closed",
    factors: Mapping[str, Any] | None = None,
    anchor: str | None = None,
    eval_hook: EvalHook | None = None,
) -> tuple[Arm, ...]:
    """Return one arm for each closed form, with the key `{prefix}-{name}` and the factor `closed_form`."""
    return tuple(
        Arm(
            key=f"{prefix}-{name}",
            label=form.label,
            data=data,
            train=closed_form_config(name, {"modalities": tuple(modalities)}),
            factors={**(factors or {}), "closed_form": name},
            anchor=anchor,
            eval_hook=eval_hook,
            note=CLOSED_FORM_NOTE,
        )
        for name, form in CLOSED_FORMS.items()
    )


def closed_form_family(first: str, *, prefix: str = "closed") -> Family:
    """Return the comparisons of a trained arm with each closed form."""
    return Family(f"{prefix}-{first}", first, tuple(f"{prefix}-{name}" for name in CLOSED_FORMS))


def is_closed_form(results: Results, arm: str) -> bool:
    return "closed_form" in results["study"]["factors"][arm]


def closed_form_section(
    results: Results, firsts: Sequence[str], *, prefix: str = "closed", title: str = "Against the closed forms"
) -> list[Section]:
    """Return the section that compares trained arms with the closed forms, or no section if the results have none."""
    families = {family["name"] for family in results["study"]["families"]}
    shown = [first for first in firsts if f"{prefix}-{first}" in families]
    if not shown:
        return []
    parts: list[Any] = [
        "The closed forms were computed on the same training rows, and their settings were chosen on the validation "
        "split. Training starts from random weights."
    ]
    for first in shown:
        family = f"{prefix}-{first}"
        arms = [first, *(f"{prefix}-{name}" for name in CLOSED_FORMS)]
        parts += [metric_table(results, arms, family=family), verdict_table(results, family)]
    return [Section(f"{prefix}-forms", title, parts)]
