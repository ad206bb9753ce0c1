"""Sources of the values of a proposal: a seeded generator."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unialign.tuning._propose import Value


def rounded(value: float, low: float, high: float) -> float:
    """Keep three significant digits, so that settings are readable."""
    return min(max(float(f"{value:.3g}"), low), high)


class RandomDraw:
    """Values that depend only on the seed of the search and on the number of the trial.

    Attributes:
        params: name -> value drawn so far.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._rng = np.random.default_rng([seed, number])
        self.params: dict[str, Any] = {}

    def choice(self, name: str, options: Sequence[Value], weights: Sequence[float] | None = None) -> Value:
        shares = np.ones(len(options)) if weights is None else np.asarray(weights, np.float64)
        place = int(self._rng.choice(len(options), p=shares / shares.sum()))
        self.params[name] = options[place]
        return options[place]

    def log_uniform(self, name: str, low: float, high: float) -> float:
        value = float(np.exp(self._rng.uniform(np.log(low), np.log(high))))
        self.params[name] = rounded(value, low, high)
        return float(self.params[name])
