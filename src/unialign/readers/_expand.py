"""Open what a source names: a file, a folder of files, or a pattern; part files become one file."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from unialign.errors import DataError, ShapeError
from unialign.readers._entry import EmbeddingFile, Reader
from unialign.readers._open import open_file, recognized
from unialign.readers._parts import concatenate, group_parts, numeric_order

__all__ = ["is_pattern", "open_sources"]

_MAX_FILES = 100_000
_MAX_DEPTH = 2


def is_pattern(text: str) -> bool:
    """Return whether a path is a pattern such as `img_emb/*.npy`, and not an existing file."""
    return glob.has_magic(text) and not os.path.exists(text)


def open_sources(
    paths: Sequence[tuple[str | None, str]], *, reader: str | Reader | None = None
) -> list[tuple[str | None, EmbeddingFile]]:
    """Open files, folders and patterns, each with the name given to it, or None.

    All files of a named folder or pattern are parts of one modality. Among the others, files with one prefix that are
    numbered are parts; see `_parts.group_parts`.
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
        for name, parts in group_parts(files, is_folder=True):
            opened.extend((None, file) for file in _open_parts(name, parts, reader))
    flush()
    return opened


def _open_parts(name: str, paths: Sequence[Path], reader: str | Reader | None) -> list[EmbeddingFile]:
    """Return parts as one file; files that cannot be parts, since dim or keys differ, as they are."""
    files = [open_file(path, reader=reader) for path in paths]
    if not name:
        return files
    try:
        return [concatenate(name, files)]
    except ShapeError:
        if "-of-" in paths[0].name:
            raise
        return files


def _files(text: str, reader: str | Reader | None) -> list[Path] | None:
    """Return the files of a folder or pattern in numeric order; None for a file, or a folder that a reader opens."""
    if is_pattern(text):
        found = sorted((Path(path) for path in glob.iglob(text) if os.path.isfile(path)), key=numeric_order)
        if not found:
            raise DataError(f"no file matches {text!r}; check the pattern")
        return found
    path = Path(text)
    if not path.is_dir() or reader is not None or recognized(path):
        return None
    found = sorted(_walk(path), key=numeric_order)
    return found or None


def _walk(folder: Path) -> list[Path]:
    """Return the files that a reader recognizes in a folder and its sub-folders."""
    found = []
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and depth < _MAX_DEPTH)
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file() and path.suffix != ".json" and recognized(path):
                found.append(path)
        if len(found) > _MAX_FILES:
            raise DataError(f"{folder} has more than {_MAX_FILES:,} files; give a pattern such as 'img_emb/*.npy'")
    return found
