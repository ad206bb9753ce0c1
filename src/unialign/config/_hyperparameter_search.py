"""Settings of a search for training settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from unialign import registry
from unialign._checks import check_choice, suggestion
from unialign.config._base import Config, setting
from unialign.config._closed_form_names import CLOSED_FORMS
from unialign.config._ranges import RESAMPLES, integer, not_empty, positive
from unialign.config._train import TrainConfig
from unialign.errors import ConfigError

_TRIALS = 50
# Training settings that the user may fix.
FIXABLE = (
    "modalities",
    "dim",
    "head",
    "hidden",
    "dropout",
    "init_regularization",
    "init_spectrum_power",
    "landmarks",
    "epochs",
    "batch_size",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "lr",
    "weight_decay",
    "precision",
)


def _metrics(name: str, value: tuple[str, ...]) -> None:
    if not 1 <= len(value) <= 3 or len(set(value)) < len(value):
        raise ConfigError(f"{name} must be one to three distinct metrics, got {list(value)}")
    if "auto" in value and len(value) > 1:
        raise ConfigError(f"{name} has auto, which combines several metrics, so it must be the only one")


def _objectives(name: str, value: tuple[str, ...]) -> None:
    not_empty(name, value)
    if len(set(value)) < len(value):
        raise ConfigError(f"{name} must not repeat a name, got {list(value)}")
    for one in value:
        if one in CLOSED_FORMS:
            continue
        if suggestion(one, CLOSED_FORMS):
            check_choice("objective", one, (*registry.names("objectives"), *CLOSED_FORMS))
        registry.check("objectives", one)


def _fixed(name: str, value: Mapping[str, Any]) -> None:
    for key in value:
        if key not in FIXABLE:
            hint = suggestion(key, FIXABLE, otherwise=f"those that can be fixed are {', '.join(FIXABLE)}")
            raise ConfigError(f"{name} has {key!r}, which cannot be fixed{hint}")
    TrainConfig.check(value)


@dataclass(frozen=True, kw_only=True)
class HyperparameterSearchConfig(Config):
    """A search for the training settings with the best space on the validation split."""

    kind: ClassVar[str] = "search"

    metric: tuple[str, ...] = setting(
        ("auto",),
        "one metric to optimize, or two or three metrics for a Pareto front: names of evaluation metrics such as "
        "`recall@1`, `joint_recall@1`, `label_map`, or `auto`, the mean of the logarithms of these three",
        _metrics,
    )
    trials: int | None = setting(
        None,
        f"number of trials, including the shipped settings (default: {_TRIALS}, or no limit if `minutes` is given)",
        integer(1),
        bookkeeping=True,
    )
    minutes: float | None = setting(
        None, "total time of the command in minutes, over all continuations (default: no limit)", positive,
        bookkeeping=True,
    )  # fmt: skip
    objectives: tuple[str, ...] = setting(
        ("unialign", "infonce", "kernel_gcca", "gcca", "ridge"),
        "objectives and closed forms to choose from",
        _objectives,
    )
    sampler: Literal["local", "random", "tpe"] = setting(
        "local",
        "how settings are proposed: half of them at random and half near the best trials so far (`local`), all at "
        "`random`, or by a tree-structured Parzen estimator (`tpe`, needs optuna)",
    )
    pruning: Literal["median", "none"] = setting(
        "median",
        "whether trials end early: `median` stops a trial that is far below the median of earlier trials in all "
        "metrics after a quarter or half of its steps",
    )
    seeds: int = setting(
        3,
        "number of seeds with which the best settings are trained before one is chosen, and of the final runs; fewer "
        "if the time of `minutes` is used",
        integer(1, 100),
    )  # fmt: skip
    top: int = setting(3, "number of best settings that are trained with all seeds", integer(1, 100))
    lag: int = setting(
        8,
        "a trial depends only on trials with a number lower by at least this, so that up to this many can run at a "
        "time with the same result",
        integer(1, 10_000),
    )
    threads: int = setting(1, "number of CPU threads of a trial; rounding depends on it", integer(1))
    seed: int = setting(0, "seed of the proposals and first seed of training", integer(0, 2**31 - 1))
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
    fixed: Mapping[str, Any] = setting(
        {}, "training settings that are not searched, such as `dim` or `modalities`", _fixed
    )

    @property
    def limit(self) -> int | None:
        """Return the number of trials; None if only the time is limited."""
        return _TRIALS if self.trials is None and self.minutes is None else self.trials
