"""Open a file, a folder of files, or the files that match a pattern, and concatenate part files."""

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unialign.errors import DataError, ShapeError
from unialign.readers._entry import ArrayEntry, EmbeddingFile, Reader
from unialign.readers._folder_files import STORE_FILE
from unialign.readers._foreign import foreign_folder
from unialign.readers._item_records import kind_of_name
from unialign.readers._no_arrays import items_of_folder
from unialign.readers._open import open_file, recognized
from unialign.readers._parts import concatenate, group_parts, numeric_order

__all__ = ["is_pattern", "open_sources"]

_MAX_FILES = 100_000
_MAX_DEPTH = 2
# Prefix of part files, such as train-00000-of-00004.parquet -> name of the split.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


def is_pattern(text: str) -> bool:
    """Return whether a path is a pattern such as `img_emb/*.npy` and does not exist as a file."""
    return glob.has_magic(text) and not os.path.exists(text)


def open_sources(
    paths: Sequence[tuple[str | None, str]], *, reader: str | Reader | None = None
) -> list[tuple[str | None, EmbeddingFile]]:
    """Open files, folders and patterns, each paired with a name or None.

    All files of a named folder or pattern are parts of one modality. Among other files, numbered files with the same
    prefix are parts.
    """
    opened: list[tuple[str | None, EmbeddingFile]] = []
    loose: list[Path] = []

    def flush() -> None:
        for name, files in group_parts(loose):
            opened.extend((None, file) for file in _open_parts(name, files, reader))
        loose.clear()

    for given, text in paths:
        files = _files(text, reader)
        if files is None:
            if given is None:
                loose.append(Path(text))
            else:
                flush()
                opened.append((given, open_file(Path(text), reader=reader)))
            continue
        flush()
        if given is not None:
            opened.append((given, concatenate(given, [open_file(file, reader=reader) for file in files])))
            continue
        opened.extend((None, file) for file in _open_folder(files, reader))
    flush()
    return opened


def _open_folder(paths: Sequence[Path], reader: str | Reader | None) -> list[EmbeddingFile]:
    groups = [
        (name, parts, [open_file(path, reader=reader) for path in parts])
        for name, parts in group_parts(paths, is_folder=True)
    ]
    _check_rows([files for _, _, files in groups])
    joined = [_joined(name, parts, files) for name, parts, files in groups]
    if all(len(files) == 1 for files in joined):
        whole = _whole([_split(name, parts) for name, parts, _ in groups], [files[0] for files in joined])
        if whole:
            return whole
    return [file for files in joined for file in files]


def _whole(found: Sequence[tuple[str, Path, str]], files: Sequence[EmbeddingFile]) -> list[EmbeddingFile]:
    """Concatenate the splits of each modality; return [] unless every modality has one file per split."""
    modalities: dict[tuple[Path, str], dict[str, EmbeddingFile]] = {}
    for (split, folder, name), file in zip(found, files, strict=True):
        modalities.setdefault((folder, name), {})[split] = file
    splits = list(dict.fromkeys(split for split, _, _ in found))
    if len(splits) < 2 or not set(splits) <= set(_SPLITS) or len(files) != len(splits) * len(modalities):
        return []
    if any(len(own) != len(splits) for own in modalities.values()):
        return []
    _check_rows([[own[split] for split in splits] for own in modalities.values()])
    whole = []
    for (folder, name), own in modalities.items():
        merged = concatenate(name or folder.absolute().name, [own[split] for split in splits])
        split_N = np.repeat([_SPLITS[split] for split in splits], [_rows(own[split]) for split in splits])
        whole.append(replace(merged, entries={**merged.entries, "split": ArrayEntry.from_array("split", split_N)}))
    return whole


def _split(name: str, parts: Sequence[Path]) -> tuple[str, Path, str]:
    """Return the split ("" if none), the folder and the rest of the name."""
    folder, stem = parts[0].parent, name or parts[0].stem
    above = folder.name.lower()
    rest, _, last = name.rpartition("-")
    own, rest = (last.lower(), rest) if last.lower() in _SPLITS else (stem.lower(), "")
    if own in _SPLITS:
        return own, folder.parent if above == own else folder, rest
    # A part number is not the name of a modality.
    return (above, folder.parent, "" if stem.isdigit() else stem) if above in _SPLITS else ("", folder, stem)


def _check_rows(groups: Sequence[Sequence[EmbeddingFile]]) -> None:
    groups = [files for files in groups if len(files) > 1]
    if not any(file.kind == "npy" for files in groups for file in files):
        return
    for files in groups[1:]:
        for first, other in zip(groups[0], files, strict=False):
            if len(files) == len(groups[0]) and _rows(first) != _rows(other):
                raise DataError(
                    f"{other.label} has {_rows(other):,} rows, but {first.label} has {_rows(first):,}; parts with the "
                    "same number must contain the same items, so write these parts again, or store ids"
                )


def _rows(file: EmbeddingFile) -> int:
    return next((entry.shape[0] for entry in file.entries.values() if entry.shape), 0)


def _open_parts(name: str, paths: Sequence[Path], reader: str | Reader | None) -> list[EmbeddingFile]:
    return _joined(name, paths, [open_file(path, reader=reader) for path in paths])


def _joined(name: str, paths: Sequence[Path], files: list[EmbeddingFile]) -> list[EmbeddingFile]:
    if not name:
        return files
    try:
        return [concatenate(name, files)]
    except ShapeError:
        if "-of-" in paths[0].name:
            raise
        return files


def _files(text: str, reader: str | Reader | None) -> list[Path] | None:
    """Return the files of a folder or pattern; None for a path that a reader opens as one file."""
    if is_pattern(text):
        found = sorted((Path(path) for path in glob.iglob(text) if os.path.isfile(path)), key=numeric_order)
        if not found:
            raise DataError(f"no file matches {text!r}; check the pattern")
        return found
    path = Path(text)
    if not path.is_dir() or reader is not None or recognized(path) or foreign_folder(path):
        return None
    found = sorted(_walk(path), key=numeric_order)
    # Text files with captions of images may look like tables.
    is_media = all(kind_of_name(file.name) == "text" for file in found) and bool(items_of_folder(path))
    return None if is_media or not found else found


def _walk(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        # The masks and ids of a store would be ignored.
        if depth and STORE_FILE in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and depth < _MAX_DEPTH)
        for name in sorted(names):
            if kind_of_name(name) not in (None, "text"):
                continue
            path = Path(place, name)
            if not name.startswith(".") and path.is_file() and path.suffix != ".json" and recognized(path):
                found.append(path)
        if len(found) > _MAX_FILES:
            raise DataError(f"{folder} has more than {_MAX_FILES:,} files; pass a pattern such as 'img_emb/*.npy'")
    return found
