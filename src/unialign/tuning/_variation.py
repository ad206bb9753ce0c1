"""Proposals near the best trials so far: most values are kept, and some are drawn again.

Half of the proposals vary one of a few good trials, as in evolutionary search (Real et al., "Regularized evolution for
image classifier architecture search", 2019); the other half is drawn from the whole space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unialign.config import TrainConfig, closed_form_of
from unialign.losses import PRESETS
from unialign.tuning._draws import RandomDraw, rounded
from unialign.tuning._propose import STARTS, Value
from unialign.tuning._scores import Goal
from unialign.tuning._trial import Trial

# Fraction of proposals that vary a good trial, number of good trials, and probability of a new value.
_SHARE, _BEST, _RATE = 0.5, 4, 0.3
# Standard deviation of the logarithm of a number that is kept.
_SPREAD = 0.25
_OPTIONS = (
    "temperature",
    "alignment_weight",
    "partition_mix",
    "partition_positive",
    "anchor",
    "similarity_scale",
)


class VariedDraw(RandomDraw):
    """Values near given ones; a value that is not an option is drawn at random."""

    def __init__(self, seed: int, number: int, near: Mapping[str, Any]) -> None:
        super().__init__(seed, number)
        self._near = near

    def choice(self, name: str, options: Sequence[Value], weights: Sequence[float] | None = None) -> Value:
        if self._is_kept(name) and self._near[name] in options:
            self.params[name] = self._near[name]
            value: Value = self._near[name]
            return value
        return super().choice(name, options, weights)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        if self._is_kept(name) and isinstance(self._near[name], int | float):
            value = float(self._near[name] * np.exp(_SPREAD * self._rng.standard_normal()))
            self.params[name] = rounded(value, low, high)
            return float(self.params[name])
        return super().log_uniform(name, low, high)

    def _is_kept(self, name: str) -> bool:
        # Draw the number in any case, so that the other values do not depend on it.
        return bool(self._rng.random() >= _RATE) and name in self._near


def local_draw(seed: int, number: int, seen: Sequence[Trial], goal: Goal) -> RandomDraw:
    """Return a draw at random, or near one of the best complete trials of those seen."""
    rng = np.random.default_rng([seed, number, 1])
    complete = [trial for trial in seen if trial.state == "complete"]
    if not complete or rng.random() >= _SHARE:
        return RandomDraw(seed, number)
    best = sorted(complete, key=lambda trial: (-goal.score(trial.metrics), trial.number))[:_BEST]
    return VariedDraw(seed, number, params_of(best[int(rng.integers(len(best)))].train))


def params_of(train: TrainConfig) -> dict[str, Any]:
    """Return the values that a proposal of these settings draws; shipped settings may have values outside the space."""
    form = closed_form_of(train)
    found: dict[str, Any] = {
        "objective": form or train.objective,
        "dim": train.dim,
        f"{train.head}.regularization": train.init_regularization,
        "spectrum_power": train.init_spectrum_power,
    }
    if form is not None:
        return found
    found |= {
        "start": next((name for name, start in STARTS.items() if start == (train.head, train.init)), ""),
        f"{train.init}.epochs": train.epochs,
        f"{train.init}.lr": train.lr,
        "mlp.dropout": train.dropout,
        "mlp.hidden": train.hidden,
        "mlp.weight_decay": train.weight_decay,
    }
    options: dict[str, Any] = dict(train.objective_options)
    if train.objective == "unialign":
        preset = PRESETS[options.get("preset", "balanced")]
        options = {"alignment_weight": 1.0, "similarity_scale": 0.0, **preset, **options}
    return found | {f"{train.objective}.{name}": options[name] for name in _OPTIONS if name in options}
