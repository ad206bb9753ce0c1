"""Proposals of optuna's tree-structured Parzen estimator, without a study on disk.

Each proposal comes from a new in-memory study, which contains the earlier trials in order of their numbers and has its
own seed. A proposal therefore does not depend on interruptions or on the order in which parallel trials end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unialign._optional import optional_module
from unialign.tuning._draws import rounded
from unialign.tuning._propose import SearchSpace, Value

# Trials before the first proposal that uses results.
_STARTUP = 10


def load_optuna() -> Any:
    """Import optuna, or raise MissingDependencyError that names the extra."""
    return optional_module("optuna", "sampler='tpe'", "tune", hint="; or use sampler='random'")


class TpeDraw:
    """Values proposed from the results of earlier trials.

    Attributes:
        params: name -> value drawn so far.
    """

    def __init__(
        self,
        seed: int,
        number: int,
        seen: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
        *,
        metrics: int,
        distributions: Mapping[str, Any],
    ) -> None:
        """`seen` has parameters and utilities (higher is better) of earlier trials, whose parameters have the given
        distributions.
        """
        self._optuna = optuna = load_optuna()
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, seed=(seed * 1_000_003 + number) % 2**32)
            study = optuna.create_study(sampler=sampler, directions=["maximize"] * metrics)
            study.add_trials(
                optuna.trial.create_trial(
                    params=dict(params),
                    distributions={name: distributions[name] for name in params},
                    values=list(values),
                )
                for params, values in seen
            )
            self._trial = study.ask()
        finally:
            optuna.logging.set_verbosity(before)
        self.params: dict[str, Any] = {}

    def choice(self, name: str, options: Sequence[Value], weights: Sequence[float] | None = None) -> Value:
        value: Value = self._trial.suggest_categorical(name, tuple(options))
        self.params[name] = value
        return value

    def log_uniform(self, name: str, low: float, high: float) -> float:
        self.params[name] = rounded(self._trial.suggest_float(name, low, high, log=True), low, high)
        return float(self.params[name])


class Distributions:
    """Draw that repeats the parameters of an earlier trial, and collects their distributions.

    Attributes:
        found: name -> distribution.
    """

    def __init__(self) -> None:
        self._kinds, self._values = load_optuna().distributions, dict[str, Any]()
        self.found: dict[str, Any] = {}

    def add(self, params: Mapping[str, Any], space: SearchSpace) -> None:
        """Add the distributions of a trial."""
        if any(name not in self.found for name in params):
            self._values = dict(params)
            space.propose(self)

    def choice(self, name: str, options: Sequence[Value], weights: Sequence[float] | None = None) -> Value:
        self.found[name] = self._kinds.CategoricalDistribution(tuple(options))
        value: Value = self._values[name]
        return value

    def log_uniform(self, name: str, low: float, high: float) -> float:
        self.found[name] = self._kinds.FloatDistribution(low, high, log=True)
        return float(self._values[name])
