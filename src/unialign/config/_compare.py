"""Settings of comparisons and evaluations."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._choices import Split
from unialign.config._ranges import RESAMPLES, integer
from unialign.config._train import TrainConfig
from unialign.errors import ConfigError


def _seeds(name: str, value: tuple[object, ...]) -> None:
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in value)
    if not value or not whole or len(set(value)) != len(value):
        raise ConfigError(f"{name} must be one or more distinct integers of at least 0, got {list(value)}")


def _entries(name: str, value: Mapping[str, "ComparisonEntry"]) -> None:
    if not value:
        raise ConfigError(f"{name} must contain at least one objective")
    for key in value:
        if not isinstance(key, str) or not re.fullmatch(r"[\w-][\w.-]*", key):
            raise ConfigError(f"the entry name {key!r} must be a file name of letters, digits, '-', '_' and '.'")
    if len({entry.train.modalities for entry in value.values()}) > 1:
        raise ConfigError("all entries of a comparison must use the same modalities")


def _version(name: str, value: object) -> None:
    if value != 1:
        raise ConfigError(f"{name} {value!r} is not supported; this version reads {name} 1")


@dataclass(frozen=True, kw_only=True)
class ComparisonEntry(Config):
    """An entry of a comparison: an objective with its training settings."""

    kind: ClassVar[str] = "comparison entry"

    label: str = setting("", "name in tables and reports (default: the key)")
    note: str = setting("", "remark for the report")
    train: TrainConfig = setting(REQUIRED, "training settings")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Config):
    """A comparison of objectives on the same data, with the same budget and seeds."""

    kind: ClassVar[str] = "comparison"

    schema: int = setting(1, "version of the configuration format", _version)
    data: str = setting(REQUIRED, "name of a data set, or path of a store")
    fingerprint: str | None = setting(None, "required fingerprint of the data; a mismatch raises DataError")
    split: Split = setting("test", "split to evaluate")
    anchor: str | None = setting(None, "anchor of the conflict metrics (default: mean over all modalities)")
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds; every entry is trained once per seed", _seeds)
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
    selection: str = setting("", "how hyper-parameters were chosen, for the report")
    entries: Mapping[str, ComparisonEntry] = setting(
        REQUIRED,
        "mapping from entry names, which are used in results and folders, to entries; the first entry is compared "
        "with all others",
        _entries,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        labeled = {key: entry if entry.label else entry.replace(label=key) for key, entry in self.entries.items()}
        object.__setattr__(self, "entries", labeled)

    @property
    def modalities(self) -> tuple[str, ...] | None:
        """Return the modalities that all entries use; None means the data's defaults."""
        return next(iter(self.entries.values())).train.modalities


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """An evaluation of a trained space."""

    kind: ClassVar[str] = "evaluation"

    space: str = setting(REQUIRED, "folder written by `Space.save_pretrained`, or a Hub id")
    data: str = setting(REQUIRED, "name of a data set, or path of a store")
    fingerprint: str | None = setting(None, "required fingerprint of the data; a mismatch raises DataError")
    split: Split = setting("test", "split to evaluate")
    anchor: str | None = setting(None, "anchor of the conflict metrics (default: mean over all modalities)")
    sample: int | None = setting(
        None,
        "number of random items to use as queries, with all items of the split as candidates; embeddings are computed "
        "in blocks (default: all items, whose embeddings are kept in memory)",
        integer(2),
    )
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
