"""Define studies, their options, their plans of arms, and the comparisons between arms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unialign._checks import check_choice, check_integer
from unialign.config import REQUIRED, Config, TrainConfig, setting
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from research.pages import Section
    from unialign.data import EmbeddingStore

__all__ = ["Arm", "DataTransform", "EvalHook", "Family", "Options", "PairedComparison", "Plan", "Study"]

Settings = Mapping[str, Any]


def _check_seeds(name: str, value: tuple[Any, ...]) -> None:
    if not value or len(set(value)) < len(value):
        raise ConfigError(f"{name} must be one or more distinct integers, got {list(value)}")
    for seed in value:
        check_integer(f"each of {name}", seed, low=0)


def _check_texts(name: str, value: Mapping[str, Any]) -> None:
    if not all(isinstance(text, str) for text in value.values()):
        raise ConfigError(f"{name} must map names of data sets to strings, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Options(Config):
    kind: ClassVar[str] = "study"

    schema: int = setting(1, "version of the file format", lambda name, value: check_choice(name, value, (1,)))
    study: str = setting(REQUIRED, "name of the study")
    seeds: tuple[int, ...] = setting(
        (0, 1, 2, 3, 4), "seeds of the runs; every arm is trained once per seed", _check_seeds
    )
    tuning_seeds: tuple[int, ...] = setting((100,), "seeds of the trials, disjoint from `seeds`", _check_seeds)
    epochs: int | None = setting(
        None, "number of epochs of every training; None: the default of the study", partial(check_integer, low=1)
    )
    resamples: int = setting(
        4000,
        "number of bootstrap resamples of the items, from 100 to 1,000,000",
        partial(check_integer, low=100, high=1_000_000),
    )
    stores: Mapping[str, str] = setting({}, "name of a data set -> folder of a store to use instead", _check_texts)
    fingerprints: Mapping[str, str] = setting({}, "name of a data set -> required revision", _check_texts)

    def validate(self) -> None:
        if both := sorted(set(self.seeds) & set(self.tuning_seeds)):
            raise ConfigError(f"seed {both[0]} is in both seeds and tuning_seeds, which must be disjoint")


@dataclass(frozen=True)
class DataTransform:
    """The transform also depends on the seed of the run. It does not change validation or test rows."""

    name: str
    arguments: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class EvalHook:
    """A measurement during training, given by a name in `_measures.MEASURES`, its arguments and its schedule.

    Attributes:
        points: number of evaluations, which include one before and one after training and are more frequent early in
            training. 1: only after training.
        split: split to evaluate.
    """

    name: str
    arguments: Settings = field(default_factory=dict)
    points: int = 8
    split: str = "test"

    def steps(self, total: int) -> list[int]:
        """Steps are spaced quadratically, since most changes happen early."""
        if self.points == 1:
            return [total]
        last = max(1, self.points - 1)
        return sorted({round(total * (i / last) ** 2) for i in range(self.points)} | {0, total})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Training configuration of a study, which is trained with every seed.

    Attributes:
        key: unique name within the study, which is part of file names; consists of letters, digits, `-`, `_` and `.`.
        data: name of a built-in data set, or folder of a store; `Options.stores` may replace it.
        train: settings before tuning; `modalities` is required, and the seed is ignored.
        factors: plain values that distinguish the arm, used for grouping on pages.
        anchor: anchor of the final conflict metrics; None: average over all modalities.
        trials: candidate settings, compared on the validation split; all tuned arms of a study must have the same
            number.
        tuned_as: key of the arm whose tuned settings are used.
        per_seed: seed -> additional settings, such as the modalities.
        transform: transform of the training data.
        init_from: key of the arm whose space, trained with the same seed, is the initialization.
        eval_hook: measurement during training and at its end.
    note: remark that is stored in the results.
    """

    key: str
    label: str
    data: str
    train: TrainConfig
    factors: Mapping[str, Any] = field(default_factory=dict)
    anchor: str | None = None
    trials: tuple[Settings, ...] = ()
    tuned_as: str | None = None
    per_seed: Mapping[int, Settings] = field(default_factory=dict)
    transform: DataTransform | None = None
    init_from: str | None = None
    eval_hook: EvalHook | None = None
    note: str = ""

    def config(self, seed: int, tuned: Settings) -> TrainConfig:
        """Settings of the seed override tuned settings, which override those of the arm."""
        return self.train.override({**tuned, **self.per_seed.get(seed, {}), "seed": seed})

    def modalities(self) -> list[str]:
        settings = ({"modalities": self.train.modalities}, *self.per_seed.values())
        return list(dict.fromkeys(name for each in settings for name in each.get("modalities") or ()))


@dataclass(frozen=True)
class Family:
    """Comparisons of a first arm with baselines on every primary metric, which share a Holm correction."""

    name: str
    first: str
    baselines: tuple[str, ...]


@dataclass(frozen=True)
class PairedComparison:
    first: str
    baseline: str
    metric: str
    kind: Literal["ratio", "difference"] = "difference"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`comparisons` have intervals but no verdicts, since they are not corrected for multiplicity."""

    arms: tuple[Arm, ...]
    families: tuple[Family, ...] = ()
    comparisons: tuple[PairedComparison, ...] = ()
    keep: tuple[str, ...] = ("recall@10", "true_pair_cosine", "modality_gap", "zeta", "zeta_neg", "chi")

    def arm(self, key: str) -> Arm:
        return next(arm for arm in self.arms if arm.key == key)

    def stages(self) -> list[list[Arm]]:
        """Each arm comes after the arm that it continues."""
        left, stages = list(self.arms), list[list[Arm]]()
        done: set[str | None] = {None}
        while left:
            ready = [arm for arm in left if arm.init_from in done]
            if not ready:
                raise ConfigError(f"the init_from chain of arm {left[0].key!r} is circular")
            stages.append(ready)
            done |= {arm.key for arm in ready}
            left = [arm for arm in left if arm.key not in done]
        return stages


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, with its arms, analysis and page.

    Attributes:
        name: key in `STUDIES`.
        title: heading of the page.
        plan: function of the options that returns the plan.
        page: function of the content of results.json that returns the sections of the page. Pages depend only on this
            content, so that they can be regenerated.
        analyse: function of the content of results.json that returns statistics over several arms, which are stored in
            `study.analysis`.
        answer: function of the content of results.json that returns summary lines for the terminal. None: the tallies
            of the families are shown.
        prepare: function that is called with the options, the folder of the study, a mapping of names to data and the
            number of workers, before the first training run, including when a study is resumed.
        epochs: default number of epochs of each training; results with fewer epochs are marked as a smoke run.
    """

    name: str
    title: str
    plan: Callable[[Options], Plan]
    page: Callable[[Mapping[str, Any]], "list[Section]"]
    analyse: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda results: {}
    answer: Callable[[Mapping[str, Any]], list[str]] | None = None
    prepare: "Callable[[Options, Path, Mapping[str, EmbeddingStore], int], None] | None" = None
    epochs: int | None = None
