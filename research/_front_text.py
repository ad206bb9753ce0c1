"""Numbers, labels and titles on the page of the study `front`."""

from collections.abc import Mapping
from typing import Any

from research._figures import minus

__all__ = ["DASH", "LABELS", "NOT_RUN", "Results", "cell", "cells_of", "label_of", "number", "title_of", "verdict"]

Results = Mapping[str, Any]
LABELS = {"recall@1": "R@1, %", "joint_recall@1": "joint R@1, %", "label_map": "label mAP, %"}
NOT_RUN = "Not run yet."
DASH = "–"
_SIGNS = {"win": " ▲", "tie": " ≈", "lose": " ▼"}


def cell(found: Mapping[str, Any] | None, *, scale: float = 100, decimals: int = 1, signed: bool = False) -> str:
    if found is None or found.get("mean") is None:
        return DASH
    plus = "+" if signed else ""
    text = f"{scale * found['mean']:{plus}.{decimals}f}"
    if found.get("low") is not None and found.get("high") is not None:
        text += f" [{scale * found['low']:{plus}.{decimals}f}, {scale * found['high']:{plus}.{decimals}f}]"
    return minus(text)


def cells_of(results: Results) -> list[tuple[str, str]]:
    study = results["study"]
    return [(data, recipe) for data in study["data"] for recipe in study["recipes"]]


def title_of(results: Results, data: str, recipe: str = "") -> str:
    study = results["study"]
    title = str(study["data"][data]["title"])
    return f"{title}, {study['recipes'][recipe]}" if recipe else title


def label_of(results: Results, objective: str) -> str:
    return str(results["study"]["labels"][objective])


def number(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def verdict(test: Mapping[str, Any] | None) -> str:
    """Return a difference with its interval and the sign of its verdict."""
    return DASH if test is None else cell(test, signed=True) + _SIGNS[test["verdict"]]
