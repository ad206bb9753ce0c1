"""Read the table of VGGSound, `id,start,label,split`, and its clips `ID_START.mp4`."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.errors import ConfigError, DataError
from unialign.media import Kind
from unialign.readers._entry import EmbeddingFile
from unialign.readers._gram_files import MediaFolder
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._no_arrays import no_arrays
from unialign.readers._splits import SPLIT_NAMES
from unialign.readers._text import text_lines
from unialign.readers._vggsound_files import clip_folders, is_vggsound_folder, table_of

__all__ = ["VGGSoundReader"]

_KINDS: dict[str, Kind] = {"video": "video", "audio": "audio", "text": "text"}
_HEADER = ["id", "start", "label", "split"]
# Maximum number of digits of a start; the names of clips have six.
_START_DIGITS = 9


class VGGSoundReader:
    """Reader of a folder with `vggsound.csv`; or of the file alone, if the reader is chosen by its name.

    A line has the id of a video, the start of the clip in seconds, the label and the split; the file has no line of
    column names. The clip of a line is `ID_START.mp4` with START in six digits, next to the table or in a subfolder.
    Every line is an item, even if the clip is missing. The audio of an item is the audio stream of the clip, and the
    text is the label.
    """

    name = "vggsound"
    suffixes = ()
    items_only = True

    def can_read(self, path: Path, head: bytes) -> bool:
        return path.is_dir() and is_vggsound_folder(path)

    def open(self, path: Path) -> EmbeddingFile:
        raise no_arrays(path)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        if len(paths) > 1:
            raise ConfigError("pass one table of VGGSound; join tables with Items.concat")
        if other := sorted({*options.rules} - {"video"}):
            raise ConfigError(f"the reader vggsound has no rule for {other[0]!r}; a rule names the folder of `video`")
        table = table_of(paths[0])
        folders = Folders(options.root or table.absolute().parent, allow_absolute=options.allow_absolute)
        places = options.rules.get("video", clip_folders(folders.roots[0]))
        clips = MediaFolder(folders, places, "video" in options.rules)
        lines = list(_lines(table))
        missing = sum(clips.find(name, (".mp4",)) is None for name, *_ in lines)
        return ItemRecords(
            name=folders.roots[0].name,
            kinds=_KINDS,
            records=_records(lines, clips),
            where=lambda row: f"{table}, clip {lines[row][0]!r}",
            roots=folders.roots,
            notes=[f"{count(missing, 'line')} without a clip ID_START.mp4"] if missing else [],
            license="CC-BY-4.0",
        )


def _records(lines: Sequence[tuple[str, str, str, str]], clips: MediaFolder) -> Iterator[dict[str, Any]]:
    for name, video, label, split in lines:
        clip = clips.find(name, (".mp4",))
        cells: dict[str, Any] = {} if clip is None else {"video": clip, "audio": clip}
        cells["text"] = {"value": label}
        # Clips of the same video are in one group.
        yield {"id": name, "cells": cells, "label": label, "group": video, "split": split}


def _lines(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (name of the clip, id of the video, label, split)."""
    for number, cells in enumerate(csv.reader(text_lines(path)), 1):
        if not cells or (number == 1 and [cell.strip().lower() for cell in cells] == _HEADER):
            continue
        if len(cells) != len(_HEADER):
            raise DataError(f"{path}, line {number}: expected id,start,label,split, got {len(cells)} cells")
        video, start, label, split = (cell.strip() for cell in cells)
        if not start.isdecimal() or len(start) > _START_DIGITS:
            raise DataError(f"{path}, line {number}: the start must be a whole number of seconds, got {start!r:.40}")
        if split.lower() not in SPLIT_NAMES:
            raise DataError(f"{path}, line {number}: the split must be train, val or test, got {split!r:.40}")
        if not video or not label:
            raise DataError(f"{path}, line {number}: the id and the label must not be empty")
        yield f"{video}_{int(start):06d}", video, label, SPLIT_NAMES[split.lower()]
