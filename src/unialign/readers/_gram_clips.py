"""Parse the annotation files of VAST and GRAM: clips with captions, optional texts and a split."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._gram_files import annotation_split

__all__ = ["ID_KEYS", "OPTIONAL_TEXTS", "TEXT_KEYS", "Clip", "read_clips"]

ID_KEYS = ("clip_id", "video_id", "image_id", "image", "id")
TEXT_KEYS = ("desc", "caption", "vast_cap")
OPTIONAL_TEXTS = ("subtitle", "vision_cap", "audio_cap", "audio_caption")


@dataclass
class Clip:
    """A clip of the annotation files; entries with the same id are captions of one clip."""

    name: str
    captions: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    split: str | None = None


def read_clips(
    paths: Sequence[Path], *, id_keys: Sequence[str], text_keys: Sequence[str]
) -> tuple[list[Clip], list[str]]:
    """Return the clips in the order of the files, and messages for the user."""
    clips: dict[str, Clip] = {}
    dropped: Counter[str] = Counter()
    for path in paths:
        for number, entry in enumerate(_entries(path)):
            where = f"{path}, entry {number}"
            name = _identifier(entry, id_keys, where)
            clip = clips.setdefault(name, Clip(name))
            part = annotation_split(path)
            if clip.files and part not in clip.files:
                # If two files list a clip, such as train and trainval, use the texts of the later file.
                clip.captions, clip.texts = [], {}
            clip.files.add(part)
            clip.captions += next((found for key in text_keys if (found := _texts(entry, key, where))), [])
            for key in OPTIONAL_TEXTS:
                if key not in text_keys and (found := _texts(entry, key, where)):
                    dropped[key] += len(found) > 1
                    clip.texts.setdefault(key, found[0])
    splits = {part for clip in clips.values() for part in clip.files}
    notes = [
        f"{count(number, 'clip')} with several texts in {key!r}: the first is used"
        for key, number in dropped.items()
        if number
    ]
    crossing = 0
    for clip in clips.values():
        clip.split = _split(clip.files, splits)
        crossing += "test" in clip.files and len(clip.files) > 1
    if crossing:
        notes.append(
            f"{count(crossing, 'clip')} of descs_ret_test.json also in another file: used only for the test split"
        )
    if silent := sum(not clip.captions for clip in clips.values()):
        notes.append(f"{count(silent, 'clip')} without a caption")
    return list(clips.values()), notes


def _split(files: set[str], all_files: set[str]) -> str | None:
    if "test" in files:
        return "test"
    if "val" in files:
        return "val"
    if "trainval" in files and "train" not in files and "train" in all_files:
        return "val"
    return "train" if files & {"train", "trainval"} else None


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        with open_regular(path) as file:
            found = json.load(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); expected a list of objects, one per clip or caption") from None
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} must have a list of objects, one per clip or caption, got {type(found).__name__}")
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DataError(f"{path}, entry {number}: expected an object, got {type(entry).__name__}")
    return found


def _identifier(entry: dict[str, Any], keys: Sequence[str], where: str) -> str:
    found = next((entry[key] for key in keys if entry.get(key) is not None), None)
    if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
        given = ", ".join(map(repr, entry))
        raise DataError(f"{where}: expected an id in one of {', '.join(keys)}; got {found!r}; the entry has {given}")
    return str(found)


def _texts(entry: dict[str, Any], key: str, where: str) -> list[str]:
    value = entry.get(key)
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise DataError(f"{where}: {key!r} must be a string or a list of strings, got {value!r:.80}")
    return [text for text in listed if text.strip()]
