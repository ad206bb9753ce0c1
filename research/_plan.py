"""What a study is: options in, a plan of arms out. Everything here is plain values that go into files and processes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unialign._checks import check_integer
from unialign.errors import ConfigError
from unialign.experiments import override
from unialign.train import TrainConfig

if TYPE_CHECKING:
    from research.pages import Section
    from unialign.data import EmbeddingStore

__all__ = ["Arm", "DataTransform", "EvalHook", "Family", "Options", "PairedComparison", "Plan", "Study"]

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user decides about a study; `config.yaml` holds exactly this.

    Attributes:
        study: its name.
        seeds: every arm is trained once per seed.
        tuning_seeds: of the trials; none of the above.
        epochs: of every training; None is the study's own number. Fewer are for a quick look.
        resamples: bootstrap resamples of the items.
        stores: name of a data set -> folder of the store to use in its place, with columns of the same names.
        fingerprints: name of a data set -> the revision that was used; another one is refused.
    """

    study: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: tuple[int, ...] = (100,)
    epochs: int | None = None
    resamples: int = 4000
    stores: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in ("seeds", "tuning_seeds"):
            seeds = getattr(self, option)
            if isinstance(seeds, str) or not isinstance(seeds, Sequence) or not seeds or len(set(seeds)) < len(seeds):
                raise ConfigError(f"{option} must be one or more different integers, got {seeds!r}")
            for seed in seeds:
                check_integer(f"each of {option}", seed, low=0)
            object.__setattr__(self, option, tuple(seeds))
        if both := sorted(set(self.seeds) & set(self.tuning_seeds)):
            raise ConfigError(f"seed {both[0]} is in seeds and in tuning_seeds; settings chosen on it would flatter it")
        if self.epochs is not None:
            check_integer("epochs", self.epochs, low=1)
        check_integer("resamples", self.resamples, low=100)
        for option in ("stores", "fingerprints"):
            given = getattr(self, option)
            if not isinstance(given, Mapping) or not all(isinstance(v, str) for v in (*given, *given.values())):
                raise ConfigError(f"{option} must map names of data sets to text, got {given!r}")

    def replace(self, **changes: Any) -> "Options":
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "study": self.study,
            "seeds": list(self.seeds),
            "tuning_seeds": list(self.tuning_seeds),
            "epochs": self.epochs,
            "resamples": self.resamples,
            "stores": dict(self.stores),
            "fingerprints": dict(self.fingerprints),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, source: str = "config") -> "Options":
        """Build from parsed YAML; `ConfigError` names what is unknown or of the wrong kind."""
        known = {"schema", *(f.name for f in dataclasses.fields(cls))}
        if unknown := sorted(set(raw) - known):
            raise ConfigError(f"{source}: unknown setting {', '.join(unknown)}; expected {', '.join(sorted(known))}")
        if raw.get("schema", 1) != 1:
            raise ConfigError(f"{source}: schema {raw['schema']!r} is not one that this version reads (1)")
        if not isinstance(raw.get("study"), str):
            raise ConfigError(f"{source}: needs `study`, the name of a study")
        return cls(**{key: value for key, value in raw.items() if key != "schema"})


@dataclass(frozen=True)
class DataTransform:
    """A store made from the data: a name of `_changes.CHANGES`, and its arguments. The run's seed comes on top.

    Training sees the changed store; validation and test are always those of the data itself.
    """

    name: str
    arguments: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class EvalHook:
    """What is measured during training: a name of `_measures.MEASURES`, its arguments, and how often.

    Attributes:
        points: looks, the first before training, the last at its end, denser at the beginning; 1 is at the end alone.
        split: rows that are measured.
    """

    name: str
    arguments: Settings = field(default_factory=dict)
    points: int = 8
    split: str = "test"

    def steps(self, total: int) -> list[int]:
        """The completed steps after which to look; squares, since most happens early."""
        if self.points == 1:
            return [total]
        last = max(1, self.points - 1)
        return sorted({round(total * (i / last) ** 2) for i in range(self.points)} | {0, total})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train. See the package's docstring for what each field asks for.

    Attributes:
        key: unique in the study; letters, digits, `-`, `_` and `.`, since files are named after it.
        data: a shipped data set's name or a store's folder; `Options.stores` may replace it.
        train: settings before tuning; `modalities` must be given. The seed comes from the options.
        anchor: of the conflict metrics at the end; None averages over all modalities.
        factors: what tells the arm from the others: plain values by which pages group and draw.
        note: what a reader must know about it.
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
    change: DataTransform | None = None
    start: str | None = None
    look: EvalHook | None = None
    note: str = ""

    def config(self, seed: int, chosen: Settings) -> TrainConfig:
        """The settings of one run: those that tuning chose, then those of the seed."""
        return override(self.train, {**chosen, **self.per_seed.get(seed, {}), "seed": seed})


@dataclass(frozen=True)
class Family:
    """Comparisons that are corrected together: the first arm against each rival, on every headline metric.

    Both train on the same modalities of the same data, or the difference would mean nothing.
    """

    name: str
    first: str
    rivals: tuple[str, ...]


@dataclass(frozen=True)
class PairedComparison:
    """The ratio or difference of a number that a look measured (a `Statistic`), paired on items and seeds."""

    first: str
    rival: str
    metric: str
    kind: Literal["ratio", "difference"] = "difference"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms of a study and which of them are compared.

    Attributes:
        contrasts: intervals of numbers that looks measured, without verdicts: nothing corrects for their number.
        keep: metrics of `unialign.evaluation.METRICS` whose resampled values are kept for intervals, besides the
            headline ones.
    """

    arms: tuple[Arm, ...]
    families: tuple[Family, ...] = ()
    contrasts: tuple[PairedComparison, ...] = ()
    keep: tuple[str, ...] = ("recall@10", "true_pair_cosine", "modality_gap", "zeta", "zeta_neg", "chi")

    def arm(self, key: str) -> Arm:
        return next(arm for arm in self.arms if arm.key == key)

    def stages(self) -> list[list[Arm]]:
        """Arms in the order in which they can be trained: those that continue another one come after it."""
        left, waves = list(self.arms), list[list[Arm]]()
        done: set[str | None] = {None}
        while left:
            ready = [arm for arm in left if arm.start in done]
            if not ready:
                raise ConfigError(f"arm {left[0].key!r} starts from {left[0].start!r}, which no arm leads to")
            waves.append(ready)
            done |= {arm.key for arm in ready}
            left = [arm for arm in left if arm.key not in done]
        return waves


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, how it is put to the data, and how the answer is shown.

    Attributes:
        name: as in `STUDIES`.
        title: the question, for the page's head.
        plan: options -> arms.
        page: content of results.json -> sections. It must not look anywhere else, so that a page can be made again.
        analyse: content of results.json, complete but for this -> numbers that several arms make together.
        answer: content of results.json -> what was found, a few lines for the terminal; None: the families' tallies.
        prepare: what all runs need and none makes: options, the study's folder, data by name, workers. It is called
            before the first training, and again when an interrupted study continues.
        epochs: of a training; with fewer, everything the study says is marked as a quick look.
    """

    name: str
    title: str
    plan: Callable[[Options], Plan]
    page: Callable[[Mapping[str, Any]], "list[Section]"]
    analyse: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda results: {}
    answer: Callable[[Mapping[str, Any]], list[str]] | None = None
    prepare: "Callable[[Options, Path, Mapping[str, EmbeddingStore], int], None] | None" = None
    epochs: int | None = None
