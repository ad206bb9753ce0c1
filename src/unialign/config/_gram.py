"""Settings of the retrieval protocol of GRAM."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._choices import Split
from unialign.config._ranges import RESAMPLES, integer, not_empty

Captions = Literal["first", "all"]
GramSubset = Literal["all", "with-audio"]


@dataclass(frozen=True, kw_only=True)
class GramConfig(Config):
    """An evaluation of a trained space by the retrieval protocol of GRAM: text against all modalities of a clip."""

    kind: ClassVar[str] = "evaluation"

    space: str = setting(REQUIRED, "folder written by `Space.save_pretrained`, or a Hub id")
    data: str = setting(REQUIRED, "name of a data set, path of a store, or a source of media")
    protocol: Literal["gram"] = setting("gram", "name of the protocol")
    fingerprint: str | None = setting(None, "required fingerprint of the data; a mismatch raises DataError")
    split: Split = setting("test", "split to evaluate")
    captions: Captions = setting("first", "captions to use as queries: the first of each clip, or all")
    subset: GramSubset = setting(
        "all", "`with-audio`: in addition to all clips of the split, evaluate the subset of clips that have audio"
    )
    text: str = setting("text", "modality of the captions")
    joint: tuple[str, ...] | None = setting(
        None, "modalities of a clip (default: all except `text`, vision_cap, audio_cap and audio_caption)", not_empty
    )
    benchmark: str | None = setting(
        None, "data set whose published numbers are shown, such as msrvtt (default: by the name of the data)"
    )
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
