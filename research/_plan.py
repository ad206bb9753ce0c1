"""Define a study: its options, the resulting plan of arms, and the comparisons between arms.

All objects hold plain values, since they are written to files and sent to worker processes.
"""

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
        raise ConfigError(f"{name} must be one or more different integers, got {list(value)}")
    for seed in value:
        check_integer(f"each of {name}", seed, low=0)


def _check_texts(name: str, value: Mapping[str, Any]) -> None:
    if not all(isinstance(text, str) for text in value.values()):
        raise ConfigError(f"{name} must map names of data sets to strings, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Options(Config):
    """The user's settings for a study, which `config.yaml` stores."""

    kind: ClassVar[str] = "study"

    schema: int = setting(1, "version of the file format", lambda name, value: check_choice(name, value, (1,)))
    study: str = setting(REQUIRED, "its name")
    seeds: tuple[int, ...] = setting((0, 1, 2, 3, 4), "seeds; every arm is trained once per seed", _check_seeds)
    tuning_seeds: tuple[int, ...] = setting((100,), "seeds of the trials, disjoint from `seeds`", _check_seeds)
    epochs: int | None = setting(
        None, "epochs of every training; None: the study's default", partial(check_integer, low=1)
    )
    resamples: int = setting(
        4000,
        "bootstrap resamples of the items, from 100 to 1,000,000",
        partial(check_integer, low=100, high=1_000_000),
    )
    stores: Mapping[str, str] = setting({}, "name of a data set -> folder of a store to use instead", _check_texts)
    fingerprints: Mapping[str, str] = setting({}, "name of a data set -> required revision", _check_texts)

    def validate(self) -> None:
        if both := sorted(set(self.seeds) & set(self.tuning_seeds)):
            raise ConfigError(
                f"seed {both[0]} is in seeds and in tuning_seeds; a seed used for tuning would be favored"
            )


@dataclass(frozen=True)
class DataTransform:
    """A change to the training data: a name in `_transforms.TRANSFORMS` and its arguments, called with the seed of a
    run.

    Validation and test rows do not change.
    """

    name: str
    arguments: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class EvalHook:
    """A measurement during training: a name in `_measures.MEASURES`, its arguments and its schedule.

    Attributes:
        points: number of evaluations, including one before and one after training; they are more frequent early in
            training. 1: only after training.
        split: split to measure on.
    """

    name: str
    arguments: Settings = field(default_factory=dict)
    points: int = 8
    split: str = "test"

    def steps(self, total: int) -> list[int]:
        """Return the steps after which to evaluate, spaced quadratically since most changes happen early."""
        if self.points == 1:
            return [total]
        last = max(1, self.points - 1)
        return sorted({round(total * (i / last) ** 2) for i in range(self.points)} | {0, total})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training configuration of a study.

    Attributes:
        key: unique within the study; of letters, digits, `-`, `_` and `.`, since files are named after it.
        data: a shipped data set's name or a store's folder; `Options.stores` may replace it.
        train: settings before tuning; `modalities` must be given. The seed comes from the options.
        factors: plain values that distinguish the arm, by which pages group and draw arms.
        anchor: anchor of the final conflict metrics; None averages over all modalities.
        trials: settings to choose from on the validation split; all tuned arms of a study have the same number.
        tuned_as: arm whose tuned settings this arm uses.
        per_seed: seed -> settings, such as the modalities.
        transform: change of the training data.
        init_from: arm whose space with the same seed this arm continues.
        eval_hook: measurement during training and at its end.
        note: remark shown with the results.
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
        """Return the settings of one run: those of the arm, overridden by the tuned ones, then by those of the seed."""
        return self.train.override({**tuned, **self.per_seed.get(seed, {}), "seed": seed})

    def modalities(self) -> list[str]:
        """Return every modality that at least one seed trains on, in order of first use."""
        settings = ({"modalities": self.train.modalities}, *self.per_seed.values())
        return list(dict.fromkeys(name for each in settings for name in each.get("modalities") or ()))


@dataclass(frozen=True)
class Family:
    """Comparisons that share a Holm correction: the first arm against each baseline, on every primary metric.

    All arms must train on the same modalities of the same data.
    """

    name: str
    first: str
    baselines: tuple[str, ...]


@dataclass(frozen=True)
class PairedComparison:
    """The ratio or difference of a resampled metric between two arms, paired on items and seeds."""

    first: str
    baseline: str
    metric: str
    kind: Literal["ratio", "difference"] = "difference"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms of a study and the comparisons between them.

    Attributes:
        comparisons: comparisons reported with intervals but without verdicts, since they are not corrected for their
        number.
        keep: metrics of `unialign.evaluation.METRICS` whose resampled values are kept for intervals, in addition to
            the primary ones.
    """

    arms: tuple[Arm, ...]
    families: tuple[Family, ...] = ()
    comparisons: tuple[PairedComparison, ...] = ()
    keep: tuple[str, ...] = ("recall@10", "true_pair_cosine", "modality_gap", "zeta", "zeta_neg", "chi")

    def arm(self, key: str) -> Arm:
        return next(arm for arm in self.arms if arm.key == key)

    def stages(self) -> list[list[Arm]]:
        """Group the arms by training order: an arm comes after the arm that it continues."""
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
    """A study: its arms, its analysis and its page.

    Attributes:
        name: name in `STUDIES`.
        title: heading of the page.
        plan: options -> arms.
        page: content of results.json -> sections. Pages depend only on this content, so they can be regenerated.
        analyse: content of results.json -> numbers computed from several arms, stored in `study.analysis`.
        answer: content of results.json -> summary for the terminal; None: show the tallies of the families.
        prepare: called before the first training, even when a study continues, with the options, the study's folder,
            the data by name and the number of workers.
        epochs: epochs of each training; if the options set fewer, the results are marked as a smoke run.
    """

    name: str
    title: str
    plan: Callable[[Options], Plan]
    page: Callable[[Mapping[str, Any]], "list[Section]"]
    analyse: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda results: {}
    answer: Callable[[Mapping[str, Any]], list[str]] | None = None
    prepare: "Callable[[Options, Path, Mapping[str, EmbeddingStore], int], None] | None" = None
    epochs: int | None = None
