"""List the items of a folder, a manifest, an archive or an array file."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from unialign import registry
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path
from unialign.readers._entry import Reader
from unialign.readers._item_records import ItemOptions, ItemReader, ItemRecords
from unialign.readers._open import find_reader, load_reader
from unialign.readers._parts import numeric_order

__all__ = ["expand_braces", "read_items"]

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_FILES = 1_000_000


def read_items(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: ItemOptions | None = None,
    *,
    reader: str | Reader | None = None,
) -> ItemRecords:
    """List the items of a source, without reading media.

    Args:
        source: a path, a pattern such as `shards/{000..099}.tar` or `data/*.parquet`, or a list of these; several files
            must have the same format.
        options: rules, kinds and other options.
        reader: name of a reader, or an instance. Default: the reader that recognizes the content.

    Raises:
        DataError: a file is missing or damaged, or no reader or rule fits.
        ConfigError: the reader is unknown or reads no items, or the source is ambiguous.
    """
    paths = _paths(source)
    found = load_reader(reader) if reader is not None else _recognized(paths)
    if not isinstance(found, ItemReader):
        names = ", ".join(name for name in registry.names("readers") if hasattr(load_reader(name), "read_items"))
        raise ConfigError(f"the reader {found.name!r} reads arrays, but no items; readers of items are {names}")
    return found.read_items(paths, options or ItemOptions())


def expand_braces(text: str) -> Iterator[str]:
    """Expand a pattern such as `{000..099}.tar`, with leading zeros as written."""
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MAX_FILES:
        raise ConfigError(f"{found[0]} in {text!r} must be an ascending range of at most {_MAX_FILES:,} files")
    for number in range(first, last + 1):
        yield from expand_braces(f"{text[: found.start()]}{number:0{len(found[1])}d}{text[found.end() :]}")


def _paths(source: object) -> list[Path]:
    given = list(source) if isinstance(source, list | tuple) else [source]
    if not given:
        raise ConfigError("no source is given; pass a folder, a manifest, an archive or a pattern")
    paths: list[Path] = []
    for text in given:
        path = checked_path(text, "the source", error=DataError)
        if path.exists() or path.is_symlink():
            paths.append(path)
            continue
        for name in expand_braces(str(path)):
            if glob.has_magic(name):
                matches = sorted((Path(match) for match in glob.iglob(name)), key=numeric_order)
                if not matches:
                    raise DataError(f"no file matches {name!r}; check the pattern")
                paths += matches
            else:
                paths.append(Path(name))
    return paths


def _recognized(paths: Sequence[Path]) -> Reader:
    readers = {path: find_reader(path) for path in (paths[0], paths[-1])}
    first, last = readers[paths[0]], readers[paths[-1]]
    if first.name != last.name:
        raise DataError(
            f"{paths[0]} is read as {first.name} and {paths[-1]} as {last.name}; pass files of one format, or choose a "
            "reader with reader=NAME (--reader)"
        )
    return first
