"""What a comparison is: data, entries to train, seeds, protocol. Read from and written to `config.yaml`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unialign.errors import ConfigError
from unialign.evaluation import METRICS
from unialign.losses import display_name
from unialign.train import TrainConfig

__all__ = ["CompareConfig", "Entry", "read_yaml"]

HEADLINE_METRICS = sum(metric.headline == "yes" for metric in METRICS.values())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the table: a label, how it is trained, and what a reader must know about it."""

    label: str
    train: TrainConfig
    note: str = ""

    @classmethod
    def of(cls, train: TrainConfig) -> "Entry":
        """The usual label of the objective, and a note where it does not train from scratch."""
        warm = (
            f"warm start: first {100 * train.infonce_warmup_ratio:.0f} % of the steps with InfoNCE"
            if train.infonce_warmup_ratio
            else ""
        )
        return cls(label=display_name(train.objective), train=train, note=warm)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """A comparison of several objectives on one data set, same budget, same seeds.

    Attributes:
        data: name of a shipped data set, or a store's folder.
        entries: key (used in results and folder names) -> Entry. The first is compared with each of the others.
        seeds: every entry is trained once per seed.
        split: rows that are evaluated.
        anchor: anchor of the conflict diagnostics; None averages over all modalities.
        resamples: bootstrap resamples.
        selection: how the hyper-parameters were chosen, in words, for the report.
        fingerprint: of the data, once known; another revision is refused.
    """

    data: str
    entries: Mapping[str, Entry]
    seeds: tuple[int, ...] = (0, 1, 2)
    split: str = "test"
    anchor: str | None = None
    resamples: int = 2000
    selection: str = ""
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if not self.entries:
            raise ConfigError("a comparison needs at least one objective")
        whole = all(isinstance(seed, int) and seed >= 0 for seed in self.seeds)
        if not self.seeds or not whole or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds must be one or more different integers of at least 0, got {list(self.seeds)}")
        if self.split not in ("train", "val", "test"):
            raise ConfigError(f"unknown split {self.split!r}; expected train, val or test")
        # The smallest p of R resamples is 2 / (R + 1), and Holm multiplies it by the number of tests.
        least = max(100, 40 * HEADLINE_METRICS * (len(self.entries) - 1))
        if self.resamples < least:
            raise ConfigError(
                f"resamples must be at least {least} for {len(self.entries)} objectives, or no difference could be "
                f"significant after correction; got {self.resamples}"
            )
        for key in self.entries:
            if not key or not all(c.isalnum() or c in "-_." for c in key) or key.startswith("."):
                raise ConfigError(f"entry {key!r} must be a file name of letters, digits, '-', '_' and '.'")
        modalities = {entry.train.modalities for entry in self.entries.values()}
        if len(modalities) > 1:
            raise ConfigError("all entries of a comparison must use the same modalities")

    @property
    def modalities(self) -> tuple[str, ...] | None:
        """Modalities that all entries use; None means the data's default ones."""
        return next(iter(self.entries.values())).train.modalities

    def replace(self, **changes: Any) -> "CompareConfig":
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "anchor": self.anchor,
            "seeds": list(self.seeds),
            "resamples": self.resamples,
            "selection": self.selection,
            "entries": {
                key: {"label": entry.label, "note": entry.note, "train": entry.train.to_dict()}
                for key, entry in self.entries.items()
            },
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, source: str = "config") -> "CompareConfig":
        """Build from parsed YAML; `ConfigError` names the key that is unknown, missing or of the wrong kind."""
        known = {"schema", "entries", *(f.name for f in dataclasses.fields(cls))}
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{source}: expected a mapping of settings, got {type(raw).__name__}")
        if unknown := sorted(set(raw) - known):
            raise ConfigError(f"{source}: unknown setting {', '.join(unknown)}; expected {', '.join(sorted(known))}")
        if raw.get("schema", 1) != 1:
            raise ConfigError(f"{source}: schema {raw['schema']!r} is not one that this version reads (1)")
        entries_raw = raw.get("entries")
        if "data" not in raw or not isinstance(entries_raw, Mapping):
            raise ConfigError(f"{source}: needs `data` and a mapping `entries`")
        entries: dict[str, Entry] = {}
        for key, entry in entries_raw.items():
            if not isinstance(entry, Mapping) or set(entry) - {"label", "note", "train"} or "train" not in entry:
                raise ConfigError(f"{source}: entry {key!r} needs `train`, and may have `label` and `note` only")
            entries[str(key)] = Entry(
                label=str(entry.get("label", key)),
                train=TrainConfig.from_dict(entry["train"]),
                note=str(entry.get("note", "")),
            )
        simple = {key: value for key, value in raw.items() if key not in ("schema", "entries") and value is not None}
        for key, value in simple.items():
            if not isinstance(value, {"seeds": list, "resamples": int}.get(key, str)):
                raise ConfigError(f"{source}: {key} is {value!r}, which is of the wrong kind")
        if "seeds" in simple:
            simple["seeds"] = tuple(simple["seeds"])
        return cls(entries=entries, **simple)


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML file of plain values; `ConfigError` names the file when it is missing or malformed."""
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}") from None
    # ValueError: no UTF-8, a date that does not exist, a number of thousands of digits.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path} as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(raw).__name__}")
    return raw
