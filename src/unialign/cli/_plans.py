"""Validated options of commands, as passed to their implementations."""

from dataclasses import dataclass
from typing import Any

from unialign.config import CompareConfig, DecoderConfig, TrainConfig

__all__ = ["ComparisonPlan", "DecoderRun", "TrainRun"]


@dataclass(frozen=True)
class TrainRun:
    """Data sources, their required fingerprint (None: any), and settings of a training."""

    sources: tuple[str, ...]
    fingerprint: str | None
    config: TrainConfig


@dataclass(frozen=True)
class ComparisonPlan:
    """Data and settings of a comparison.

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
    """Data sources, their required fingerprint (None: any), image column, and settings of a decoder training."""

    sources: tuple[str, ...]
    fingerprint: str | None
    image: str
    config: DecoderConfig
