"""Train the settings of a trial on the training rows, and measure the validation rows."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from unialign.data import EmbeddingStore
from unialign.embedding import encoder_threads
from unialign.errors import DataError, NonFiniteError
from unialign.evaluation import validation_metrics
from unialign.space import Space
from unialign.train import EvalCallback, HealthWarning, fit, training_steps
from unialign.tuning._pruning import SHARES, Limits, is_hopeless
from unialign.tuning._scores import Goal
from unialign.tuning._trial import Trial


@dataclass(frozen=True)
class TrialJob:
    """Picklable description of a trial.

    Attributes:
        trial: the trial without its results.
        store: path of the store with the training and validation rows.
        limits: limits of the early evaluations.
    """

    trial: Trial
    store: str
    goal: Goal
    limits: Limits
    threads: int
    device: str

    def run(self) -> Trial:
        """Return the trial with its results."""
        store, began = EmbeddingStore.open(self.store), time.perf_counter()
        if len(store.rows("test")):
            raise DataError(f"the data of trials in {self.store} has test rows; delete the folder to write it again")
        with encoder_threads(self.threads), warnings.catch_warnings():
            # The health of settings that are not chosen does not matter.
            warnings.simplefilter("ignore", HealthWarning)
            trial = run_trial(store, self.trial, self.goal, self.limits, device=self.device)
        return replace(trial, seconds=round(time.perf_counter() - began, 3))


class _Pruned(Exception):
    def __init__(self, share: str, metrics: Mapping[str, float]) -> None:
        super().__init__(share)
        self.share, self.metrics = share, metrics


def run_trial(store: EmbeddingStore, trial: Trial, goal: Goal, limits: Limits, *, device: str = "auto") -> Trial:
    """Train, and evaluate after `SHARES` of the steps and at the end.

    Weights that are not finite give a failed trial, since large learning rates are a part of the search.
    """
    train = trial.train.replace(seed=trial.seed)
    steps = training_steps(store, train) if train.epochs else 0
    shares = {max(1, round(share * steps)): str(share) for share in SHARES} if steps > 1 else {}
    early: dict[str, dict[str, float]] = {}

    def measure(space: Space) -> dict[str, float]:
        return goal.with_auto(validation_metrics(store, space, goal.measured))

    def evaluate(step: int, space: Any) -> None:
        share = shares[step]
        early[share] = measure(space)
        if is_hopeless(early[share], share, limits, goal):
            raise _Pruned(share, early[share])

    callback = EvalCallback(tuple(shares), evaluate) if shares else None
    try:
        metrics = measure(fit(store, train, device=device, progress="none", eval_callback=callback).space)
    except _Pruned as stopped:
        message = f"far below the median after {float(stopped.share):.0%} of the steps".replace("%", " %")
        return replace(trial, state="pruned", metrics=stopped.metrics, early=early, message=message)
    except NonFiniteError as error:
        return replace(trial, state="failed", early=early, message=str(error))
    return replace(trial, metrics=metrics, early=early)
