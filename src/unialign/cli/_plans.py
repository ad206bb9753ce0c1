"""Checked options of commands, as the work takes them."""

from dataclasses import dataclass
from typing import Any

from unialign.config import CompareConfig, DecoderConfig, TrainConfig

__all__ = ["Comparison", "DecoderRun", "TrainRun"]


@dataclass(frozen=True)
class TrainRun:
    """What to train: sources of the data, the fingerprint they must have (None: any), and settings."""

    sources: tuple[str, ...]
    fingerprint: str | None
    config: TrainConfig


@dataclass(frozen=True)
class Comparison:
    """What to compare.

    Attributes:
        file: a comparison to repeat; None: a new one of `objectives`.
        objectives: names of objectives, or of the file's entries; (): the default, or all entries.
        training: training settings of all entries.
        settings: settings of the comparison.
    """

    sources: tuple[str, ...]
    file: CompareConfig | None
    objectives: tuple[str, ...]
    training: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class DecoderRun:
    """What to train: sources of the data, the fingerprint they must have (None: any), the column, and settings."""

    sources: tuple[str, ...]
    fingerprint: str | None
    image: str
    config: DecoderConfig
