"""Read the annotation files of VAST and GRAM, with videos in `vision/` and audio files in `audio/`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from unialign._checks import check_choice
from unialign._plain_text import count
from unialign.config import Captions
from unialign.errors import ConfigError
from unialign.media import Kind
from unialign.readers._entry import EmbeddingFile
from unialign.readers._gram_clips import ID_KEYS, OPTIONAL_TEXTS, TEXT_KEYS, Clip, read_clips
from unialign.readers._gram_files import MediaFolder, is_annotation, is_gram_folder, list_annotations
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._no_arrays import no_arrays

__all__ = ["GramReader"]

_VIDEO = (".mp4", ".avi", ".webm", ".mkv")
_AUDIO = (".wav", ".mp3", ".flac", ".m4a", ".mkv")
_FOLDERS = {"video": "vision", "audio": "audio"}
_KINDS: dict[str, Kind] = {"video": "video", "audio": "audio", "text": "text"}
_OPTIONAL: dict[str, Kind] = dict.fromkeys(OPTIONAL_TEXTS, "text")
_CORRUPTED = ("corrupted", "corrupted.txt")


class GramReader:
    """Reader of `descs_ret_{train,trainval,val,test}.json` with media in `vision/` and `audio/`.

    Every clip of the annotation files is an item, even without media. If a clip has no audio file, the audio of its
    video is used. Each caption of a clip is a separate item; these items have equal ids and the same media. An
    annotation file is parsed as a whole, which needs several times its size in memory. Split large files, such as those
    of VAST-27M, by clips, and read them one at a time.

    Args:
        captions: "first" to list only the first caption of each clip.
    """

    name = "gram"
    suffixes = ()
    items_only = True

    def __init__(self, *, captions: Captions = "all") -> None:
        check_choice("captions", captions, get_args(Captions))
        self._captions = captions

    def can_read(self, path: Path, head: bytes) -> bool:
        return is_gram_folder(path) if path.is_dir() else is_annotation(path.name)

    def open(self, path: Path) -> EmbeddingFile:
        raise no_arrays(path)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        files = [file for path in paths for file in list_annotations(path)]
        folders = Folders(options.root or files[0].absolute().parent, allow_absolute=options.allow_absolute)
        keys, places = _rules(options)
        clips, notes = read_clips(files, id_keys=keys["id"], text_keys=keys["text"])
        media = {name: MediaFolder(folders, place, name in options.rules) for name, place in places.items()}
        notes += _corrupted(files[0].parent, clips)
        found = {name for clip in clips for name in clip.texts}
        keys_of_items: list[str] = []
        return ItemRecords(
            name=folders.roots[0].name,
            kinds=_KINDS | {name: kind for name, kind in _OPTIONAL.items() if name in found},
            records=_records(clips, media, self._captions, keys_of_items),
            where=lambda row: f"{folders.roots[0]}, clip {keys_of_items[row]!r}",
            roots=folders.roots,
            notes=notes,
        )


def _rules(options: ItemOptions) -> tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]]:
    """Return the keys of ids and captions, and the folders of videos and audio files."""
    if other := sorted({*options.rules} - {"video", "audio", "text"}):
        raise ConfigError(
            f"the reader gram has no rule for {other[0]!r}; rules name the folder of `video` and `audio` (--rule "
            "video=videos/) and the key of `text`"
        )
    if other := sorted({*options.values} - {"id"}):
        raise ConfigError(f"the reader gram does not read {other[0]} from a column; omit the option")
    if wrong := [name for name, kind in options.kinds.items() if (_KINDS | _OPTIONAL).get(name) != kind]:
        raise ConfigError(f"the reader gram has no modality {wrong[0]!r} of kind {options.kinds[wrong[0]]}")
    found_id = options.values.get("id")
    keys: dict[str, Sequence[str]] = {
        "id": ID_KEYS if found_id is None else (found_id,),
        "text": options.rules.get("text", TEXT_KEYS),
    }
    return keys, {name: options.rules.get(name, (folder,)) for name, folder in _FOLDERS.items()}


def _records(
    clips: Sequence[Clip], media: dict[str, MediaFolder], captions: Captions, keys: list[str]
) -> Iterator[dict[str, Any]]:
    for clip in clips:
        cells: dict[str, Any] = {}
        video = media["video"].find(clip.name, _VIDEO)
        # Whether the video has an audio stream is known only when it is decoded.
        audio = media["audio"].find(clip.name, _AUDIO) or video
        cells |= {name: cell for name, cell in (("video", video), ("audio", audio)) if cell is not None}
        cells |= {name: {"value": text} for name, text in clip.texts.items()}
        shown = clip.captions[:1] if captions == "first" else clip.captions
        for number, caption in enumerate(shown or [None]):
            record: dict[str, Any] = {
                "id": clip.name if number == 0 else f"{clip.name}#{number + 1}",
                "cells": cells if caption is None else {**cells, "text": {"value": caption}},
                "ids": clip.name,
                "group": clip.name,
            }
            if clip.split is not None:
                record["split"] = clip.split
            keys.append(record["id"])
            yield record


def _corrupted(folder: Path, clips: Sequence[Clip]) -> list[str]:
    """Count the clips in the list of broken videos; their files are used if they can be decoded."""
    path = next((folder / name for name in _CORRUPTED if (folder / name).is_file()), None)
    if path is None:
        return []
    listed = set(re.findall(r"""[^\s,\[\]'"]+""", path.read_text("utf-8", errors="replace")))
    found = sum(clip.name in listed for clip in clips)
    return [
        f"{path.name} lists {count(found, 'clip')} of the annotation files; their media are used if they can be decoded"
    ]
