"""Find the ids of each file: an array that the user names, the array `ids`, or an array with a common name."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from unialign._checks import suggestion
from unialign.errors import ConfigError, DataError
from unialign.readers._entry import ArrayEntry
from unialign.readers._keys import CollectedFile, is_matrix, mask_prefix, plain_key
from unialign.readers._rows import Array

__all__ = ["FoundIds", "find_ids", "ids_beside"]

# Common names of ids, in order of preference.
_NAMES = (
    "id", "key", "keys", "uuid", "uid", "guid", "item_id", "sample_id", "example_id", "image_id", "img_id", "video_id",
    "audio_id", "clip_id", "text_id", "doc_id", "document_id", "asset_id", "product_id", "cell_ids", "cell_id",
    "barcode", "obs_names", "sample_key", "__key__", "filename", "file_name", "image_path", "file_path", "filepath",
    "path", "url",
)  # fmt: skip
# Names of data frame indexes. If data frames were concatenated, the numbers repeat and are not used as ids.
_ROW_NUMBERS = ("index", "__index_level_0__", "unnamed: 0")


@dataclass(frozen=True)
class FoundIds:
    """Ids of one file; guessed if the array is not called `ids` and was not named by the user."""

    source: CollectedFile
    entry: ArrayEntry
    key: str
    is_guessed: bool

    @cached_property
    def values_N(self) -> Array:
        values_N = np.asarray(self.entry.load())
        return np.char.decode(values_N, "utf-8", "replace") if values_N.dtype.kind == "S" else values_N


def find_ids(sources: Sequence[CollectedFile], name: str | None) -> tuple[dict[CollectedFile, FoundIds], list[str]]:
    found: dict[CollectedFile, FoundIds] = {}
    notes: list[str] = []
    if name is not None:
        shown = [(plain_key(name, source.file), source.file) for source in sources]
        name = next((key for key, file in shown if key in file.entries), name)
    known = sorted({key for source in sources for key, e in source.file.entries.items() if _is_id_array(e)})
    for source in sources:
        if source.file.kind == "arguments":
            continue
        key = _chosen(source, name)
        if key is None:
            continue
        entry = source.file.entries[key]
        if not _is_id_array(entry):
            continue  # an error for `ids` of an invalid type is raised when per-item values are read
        ids = FoundIds(source, entry, key, is_guessed=key not in ("ids", name))
        try:
            _ = ids.values_N if ids.is_guessed else None
        except DataError as error:
            notes.append(f"{error}; this array is not used as ids")
            continue
        found[source] = ids
        if key != "ids":
            entries = {k: e for k, e in source.file.entries.items() if k not in ("ids", key)}
            source.file = replace(source.file, entries={**entries, "ids": replace(entry, key="ids")})
    if name is not None and all(ids.key != name for ids in found.values()):
        listed = (
            f"the arrays with one value per item are {', '.join(known)}" if known else "no array has one value per item"
        )
        raise ConfigError(f"no file has ids called {name!r}; {listed}{suggestion(name, known)}")
    notes += [
        f"the ids of {ids.source.file.label} are guessed to be {ids.key!r}; choose other ids with --id NAME or id=NAME"
        for ids in found.values()
        if ids.is_guessed
    ]
    return found, notes


def ids_beside(paths: Iterable[Path]) -> list[Path]:
    """Find `STEM_ids.npy`, `STEM.ids.npy` or `ids.npy` next to plain arrays."""
    listed = [Path(os.path.abspath(path)) for path in paths]
    found: dict[Path, None] = {}
    for path in listed:
        if path.suffix != ".npy":
            continue
        names = (f"{path.stem}_ids.npy", f"{path.stem}.ids.npy", "ids.npy")
        beside = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
        if beside is not None and beside not in listed:
            found[beside] = None
    return list(found)


def _chosen(source: CollectedFile, name: str | None) -> str | None:
    entries = source.file.entries
    if name is not None and name in entries and _is_id_array(entries[name]):
        return name
    if "ids" in entries:
        return "ids"
    rows = {entry.shape[0] for entry in entries.values() if is_matrix(entry)}
    usable = {
        _plain(key): key
        for key, entry in reversed(list(entries.items()))
        if _is_id_array(entry) and mask_prefix(key) is None and (not rows or entry.shape[0] in rows)
    }
    for usual in map(_plain, _NAMES):
        if usual in usable:
            return usable[usual]
    for usual in map(_plain, _ROW_NUMBERS):
        if usual in usable:
            values_N = entries[usable[usual]].load()
            # Do not use 0, 1, ... as ids, since they may have been renumbered after rows were dropped.
            counted = values_N.dtype.kind in "iu" and np.array_equal(values_N, np.arange(len(values_N)))
            if not counted and len(np.unique(values_N)) == len(values_N):
                return usable[usual]
    return None


def _plain(key: str) -> str:
    """Normalize a name: "imageid" for `imageId` and `table/image_id`."""
    return re.sub(r"[-_ :]", "", key.rpartition("/")[2].lower())


def _is_id_array(entry: ArrayEntry) -> bool:
    return not entry.skipped and len(entry.shape) == 1 and entry.kind in ("i", "u", "U", "S")
