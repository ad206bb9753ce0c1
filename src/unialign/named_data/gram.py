"""Test sets of papers on video retrieval, in the layout of VAST and GRAM, in a folder of the user."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unialign.items import SPLITS, Items
from unialign.named_data._named_data import NamedData

_LAYOUT = "descs_ret_test.json, vision/ and audio/"


def read(folder: Path, name: str) -> Items:
    """List the clips of all annotation files; see the reader `gram`."""
    return Items.open(folder, reader="gram", name=name, license="unknown", allow_absolute=True)


def count_clips(items: Items) -> dict[str, int]:
    """Return the number of clips of each split, and of their captions."""
    found = {}
    for code, split in enumerate(SPLITS):
        rows_N = items.split == code
        if rows_N.any():
            found[f"clips ({split})"] = len(np.unique(items.ids[rows_N]))
            found[f"captions ({split})"] = int(_captions(items)[rows_N].sum())
    found["clips"] = len(np.unique(items.ids))
    for modality in items.modalities:
        found[f"clips with {modality}"] = len(np.unique(items.ids[items.present(modality)]))
    return found


def _captions(items: Items) -> NDArray[np.bool_]:
    return items.present("text") if "text" in items.modalities else np.zeros(len(items), bool)


def _data(name: str, title: str, counts: Mapping[str, int]) -> NamedData:
    return NamedData(
        name=f"gram:{name}",
        title=title,
        license="unknown",
        install="",
        folder=Path(name),
        version="annotations of VAST and GRAM",
        counts=counts,
        equal_texts=(),
        equal_files=(),
        read=partial(read, name=f"gram:{name}"),
        keeps_split=True,
        count=count_clips,
        layout=_LAYOUT,
    )


DATA = {
    data.name: data
    for data in (
        _data("msrvtt", "MSR-VTT: videos with one caption each, some with subtitles", {"clips (test)": 1000}),
        _data("didemo", "DiDeMo: videos with one paragraph each", {"clips (train)": 8363, "clips (test)": 1003}),
        _data(
            "activitynet",
            "ActivityNet Captions: videos with one paragraph each",
            {"clips (train)": 10009, "clips (test)": 4917},
        ),
        _data("vatex", "VATEX: videos with ten captions each", {"clips (test)": 1500, "captions (test)": 15000}),
        _data("audiocaps", "AudioCaps: audio clips with captions", {"clips (test)": 729}),
        _data("youcook", "YouCook2: clips of recipes with one caption each", {}),
        _data("vast", "VAST-27M or a part of it: clips with captions of video, audio and subtitles", {}),
    )
}
