"""A trial: settings, their validation metrics, and how they were found. Trials are lines of `trials.jsonl`."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from unialign.config import TrainConfig, closed_form_of
from unialign.errors import DataError

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial.

    Attributes:
        number: place in the search; settings that are trained again with another seed keep their number.
        seed: seed of training.
        source: `shipped`, or the sampler: `local`, `random` or `tpe`.
        name: name of shipped settings, or the objective with its start.
        params: name -> value of the searched settings; empty for shipped ones.
        train: training settings.
        state: `complete`, `pruned` (stopped early) or `failed` (not finite).
        metrics: validation metrics; empty for failed trials. Those of pruned trials are of their last evaluation.
        early: fraction of the steps -> validation metrics.
        message: reason why the trial was pruned or failed.
        seconds: duration of the trial.
        elapsed: duration of the search when the trial ended, over all continuations.
    """

    number: int
    seed: int
    source: str
    name: str
    params: Mapping[str, Any]
    train: TrainConfig
    state: State = "complete"
    metrics: Mapping[str, float] = field(default_factory=dict)
    early: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    elapsed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types; NaN is None."""
        values = {name: getattr(self, name) for name in _FIELDS}
        values["train"] = self.train.to_dict()
        values["metrics"] = _numbers(self.metrics)
        values["early"] = {share: _numbers(found) for share, found in self.early.items()}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trial":
        """Rebuild a trial from a line of `trials.jsonl`."""
        try:
            found = {name: values[name] for name in _FIELDS}
            found["train"] = TrainConfig.from_dict(found["train"])
            found["metrics"] = _read_numbers(found["metrics"])
            found["early"] = {share: _read_numbers(numbers) for share, numbers in found["early"].items()}
            return cls(**found)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"a line of trials.jsonl is not a trial ({type(error).__name__}: {error})") from None


_FIELDS = tuple(asdict(Trial(0, 0, "", "", {}, TrainConfig())))


def trial_name(train: TrainConfig) -> str:
    """Return the name of a closed form, or the objective with its head, such as `unialign, kernel from gcca`."""
    form = closed_form_of(train)
    if form is not None:
        return form
    start = train.head if train.init == "random" else f"{train.head} from {train.init}"
    return f"{train.objective}, {start}"


def _numbers(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _read_numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}
