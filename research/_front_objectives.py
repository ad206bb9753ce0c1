"""Objectives of the study `front`, their recipes, and the settings of their trials.

Every objective has the same number of trials. Trial 0 has the published settings; the others are drawn by a seeded
random search. All objectives share the draws, so that trial 3 has the same learning rate and, on its own scale, the
same temperature with every objective.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from research._front_data import FrontData
from unialign._plain_text import join_words
from unialign.config import TrainConfig
from unialign.losses import PRESETS, parameter_names

__all__ = ["ENTRIES", "RECIPES", "Entry", "base_config", "closed_form_settings", "missing_options", "trial_settings"]

# The settings of the closed-form start, which are chosen once per data set.
START = ("init_regularization", "init_spectrum_power")


@dataclass(frozen=True)
class Recipe:
    title: str
    settings: Mapping[str, Any]
    lr: tuple[float, float]


RECIPES: Mapping[str, Recipe] = {
    "kernel": Recipe(
        "from kernel GCCA",
        {"head": "kernel", "init": "gcca", "dim": 256, "epochs": 10, "lr": 1e-3, "weight_decay": 0.0},
        lr=(3e-4, 3e-3),
    ),
    "linear": Recipe(
        "from random weights",
        {"head": "linear", "dim": 64, "epochs": 40, "lr": 6e-3, "weight_decay": 0.05},
        lr=(1.5e-3, 1.5e-2),
    ),
}


@dataclass(frozen=True)
class Entry:
    """An objective of the study.

    Attributes:
        options: fixed options of the objective.
        ranges: drawn option -> its range, and whether it is drawn on a logarithmic scale; in the order of the draws.
        published: options of trial 0.
        settings: drawn training setting -> its two values.
        uses_anchor: whether the anchor of the data set is used instead of all pairs.
    """

    label: str
    objective: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float, bool]] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    uses_anchor: bool = False


_TAU, _S = (0.03, 0.2, True), (2.0, 15.0, False)


def _unialign(
    label: str, preset: str, *, weight: float, s: float = 0.0, scales: tuple[float, float] = (2.0, 15.0)
) -> Entry:
    ranges = {"temperature": _TAU, "alignment_weight": (0.4, 1.4, True)}
    published = {"temperature": 0.07, "alignment_weight": weight}
    if s:
        ranges, published = {**ranges, "similarity_scale": (*scales, False)}, {**published, "similarity_scale": s}
    options = {"preset": preset} | ({"anchor": "all"} if preset == "balanced" else {})
    return Entry(label, "unialign", options, ranges, published)


ENTRIES: Mapping[str, Entry] = {
    "infonce": Entry("InfoNCE", "infonce", {}, {"temperature": _TAU}, {"temperature": 0.07}),
    "unialign": _unialign("UniAlign, paper form", "balanced", weight=1.0),
    "small_batch": _unialign("UniAlign, small_batch", "small_batch", weight=1.0),
    "retrieval": _unialign("UniAlign, retrieval", "retrieval", weight=0.7, s=5.0),
    # These two presets differ only in the scale, so their ranges are disjoint.
    "joint_queries": _unialign("UniAlign, joint_queries", "joint_queries", weight=0.7, s=5.0, scales=(2.0, 7.0)),
    "classes": _unialign("UniAlign, classes", "classes", weight=0.9, s=10.0, scales=(7.0, 15.0)),
    "infonce_similarity": Entry(
        "InfoNCE, similarity",
        "infonce",
        {},
        {"temperature": _TAU, "similarity_scale": _S},
        {"temperature": 0.07, "similarity_scale": 5.0},
    ),
    "sigmoid": Entry(
        "Sigmoid",
        "sigmoid",
        {},
        {"scale": (5.0, 33.0, True), "bias": (-12.0, -2.0, False)},
        {"scale": 10.0, "bias": -10.0},
    ),
    "gram": Entry(
        "GRAM",
        "gram",
        {},
        {"temperature": (0.03, 0.4, True)},
        {"temperature": 0.07},
        {"infonce_warmup_ratio": (0.0, 0.5)},
        uses_anchor=True,
    ),
}


def missing_options(entry: str) -> str:
    """Return which preset or options this version of the library lacks; "" if none."""
    one = ENTRIES[entry]
    known = parameter_names(one.objective)
    odd = [repr(option) for option in (*one.options, *one.ranges) if option not in known]
    if one.options.get("preset", "balanced") not in PRESETS:
        odd.append(f"preset={one.options['preset']!r}")
    return f"{one.objective} has no {join_words(odd)}" if odd else ""


def base_config(
    data: FrontData, recipe: str, entry: str, start: Mapping[str, Any], *, epochs: int | None = None
) -> TrainConfig:
    """Return the settings before a trial; `start` has the settings of the closed form."""
    one, settings = ENTRIES[entry], dict(RECIPES[recipe].settings)
    settings |= dict(start) if recipe == "kernel" else {"dropout": data.dropout}
    if epochs is not None:
        settings["epochs"] = epochs
    options = {**one.options, **({"anchor": data.anchor} if one.uses_anchor else {})}
    return TrainConfig(
        objective=one.objective,
        objective_options=options,
        modalities=data.modalities,
        batch_size=256,
        save_steps=None,
        **settings,
    )


def closed_form_settings(data: FrontData, start: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of kernel GCCA; without `start`, they are chosen on the validation split."""
    return TrainConfig(
        modalities=data.modalities, head="kernel", init="gcca", dim=256, epochs=0, save_steps=None, **dict(start)
    )


def trial_settings(
    entry: str, recipe: str, trial: int, *, temperatures: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return the settings of a trial.

    Args:
        temperatures: other range of the temperature; for the sigmoid loss, of the reciprocal of the scale.
    """
    one = ENTRIES[entry]
    u_lr, u_setting, *u_options = np.random.default_rng([19, trial]).random(6).tolist()
    if trial == 0:
        chosen: dict[str, Any] = {f"objective_options.{name}": value for name, value in one.published.items()}
        return {**chosen, **{name: low for name, (low, _) in one.settings.items()}}
    found: dict[str, Any] = {"lr": _between(*RECIPES[recipe].lr, True, u_lr)}
    for (name, bounds), u in zip(one.ranges.items(), u_options, strict=False):
        if temperatures is not None and name == "temperature":
            bounds = (*temperatures, True)
        elif temperatures is not None and name == "scale":
            bounds = (1 / temperatures[1], 1 / temperatures[0], True)
        # A large scale is a low temperature.
        found[f"objective_options.{name}"] = _between(*bounds, 1 - u if name == "scale" else u)
    return found | {name: values[int(u_setting >= 0.5)] for name, values in one.settings.items()}


def _between(low: float, high: float, logarithmic: bool, u: float) -> float:
    value = math.exp(math.log(low) + u * math.log(high / low)) if logarithmic else low + u * (high - low)
    return float(f"{value:.4g}")
