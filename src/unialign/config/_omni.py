"""Settings of the omni protocol."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._choices import Split
from unialign.config._ranges import RESAMPLES, integer, not_empty

OmniPool = Literal["shared", "pair"]


@dataclass(frozen=True, kw_only=True)
class OmniConfig(Config):
    """A comparison of the modalities of a trained space on the same items."""

    kind: ClassVar[str] = "evaluation"

    space: str = setting(REQUIRED, "folder written by `Space.save_pretrained`, or a Hub id")
    data: str = setting(REQUIRED, "name of a data set, path of a store, or a source of media")
    protocol: Literal["omni"] = setting("omni", "name of the protocol")
    fingerprint: str | None = setting(None, "required fingerprint of the data; a mismatch raises DataError")
    split: Split = setting("test", "split to evaluate")
    modalities: tuple[str, ...] | None = setting(
        None, "modalities to compare (default: all that the space and the data share)", not_empty
    )
    pool: OmniPool = setting(
        "shared",
        "`shared`: the items that have every modality, so that pairs are compared on the same items; `pair`: for each "
        "pair, the items that have both",
    )
    k: int = setting(10, "cut-off of NDCG, and number of neighbors", integer(1))
    sample: int | None = setting(
        None, "number of random items; time grows with its square (default: all items of the split)", integer(3)
    )
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
