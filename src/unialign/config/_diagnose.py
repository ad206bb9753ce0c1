"""Settings of a diagnosis."""

from dataclasses import dataclass
from typing import ClassVar

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._ranges import RESAMPLES, integer, not_empty


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(Config):
    """A diagnosis of embeddings."""

    kind: ClassVar[str] = "diagnosis"

    files: tuple[str, ...] = setting(
        REQUIRED,
        "files of embeddings with the same items in the same order; NAME=FILE sets the name of a matrix",
        not_empty,
    )
    against: tuple[str, ...] | None = setting(
        None,
        "files of an older version of the same embeddings, for a comparison row by row",
        not_empty,
    )
    modalities: tuple[str, ...] | None = setting(None, "modalities to diagnose (default: all)", not_empty)
    id: str | None = setting(
        None, "array or column of ids that joins the files (default: ids, or a common name such as id or key)"
    )
    sample: int | None = setting(
        None,
        "number of items in the random sample (default: up to 2048, fewer for more than 6 modalities)",
        integer(16),
    )
    batch_size: int = setting(
        256, "items of a training batch, whose similar negatives are counted (not with --against)", integer(2)
    )
    resamples: int = setting(1000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
    seed: int = setting(0, "seed of the sample and the bootstrap", integer(0))
