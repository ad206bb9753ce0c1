"""Records that readers of item tables yield, and the options of these readers."""

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from unialign._checks import check_choice
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path
from unialign.media import KINDS, Kind
from unialign.readers._entry import Reader

__all__ = ["SUFFIXES", "Folders", "ItemOptions", "ItemReader", "ItemRecords", "Layout", "kind_of_name", "suffix_of"]

Layout = Literal["auto", "suffixes", "folders", "classes"]

# Suffixes of the media that the decoders read.
SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm"),
    "text": (".txt", ".caption"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif"),
    "video": (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"),
}
_KINDS: Mapping[str, Kind] = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
_VALUES = ("id", "group", "ids", "label", "split")


@dataclass(frozen=True)
class ItemOptions:
    """Options for reading items; see `Items.open`.

    Attributes:
        rules: modality -> locations of its cells, in order of priority.
        kinds: modality -> kind of media.
        root: folder that paths are relative to.
        layout: layout of a folder.
        values: "id", "group", "ids", "label" and "split" -> name of the column.
        allow_absolute: whether paths outside of `root` are accepted.
        allow_truncated: whether a truncated archive is accepted.
    """

    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    root: Path | None = None
    layout: Layout = "auto"
    values: Mapping[str, str] = field(default_factory=dict)
    allow_absolute: bool = False
    allow_truncated: bool = False

    @classmethod
    def checked(
        cls,
        *,
        rules: Mapping[str, str | Sequence[str]] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        root: str | os.PathLike[str] | None = None,
        layout: Layout = "auto",
        values: Mapping[str, str | None] | None = None,
        allow_absolute: bool = False,
        allow_truncated: bool = False,
    ) -> "ItemOptions":
        """Return validated options; raise ConfigError if one is invalid."""
        check_choice("layout", layout, get_args(Layout))
        for name, kind in (kinds or {}).items():
            check_choice(f"kind of the modality {name!r},", kind, KINDS)
        places = {name: (found,) if isinstance(found, str) else tuple(found) for name, found in (rules or {}).items()}
        for name, found in places.items():
            if not isinstance(name, str) or not name or not found or not all(isinstance(x, str) and x for x in found):
                raise ConfigError(f"the rule of {name!r} must be one or several strings, got {(rules or {})[name]!r}")
        if unknown := [name for name in kinds or {} if places and name not in places]:
            raise ConfigError(f"kinds contains {unknown[0]!r}, which has no rule; the rules define {', '.join(places)}")
        return cls(
            places,
            dict(kinds or {}),
            None if root is None else checked_path(root, "the root", error=ConfigError),
            layout,
            {name: column for name, column in (values or {}).items() if column is not None},
            allow_absolute,
            allow_truncated,
        )


@dataclass(frozen=True)
class ItemRecords:
    """Items of a source.

    Attributes:
        name: name of the source.
        kinds: modality -> kind of media, in the order of the modalities.
        records: mappings in the form of the lines of `items.jsonl`: `id`, `cells` (modality -> JSON form of a `Cell`),
            and optionally `group`, `ids`, `label` and `split`. They are iterated once.
        where: function that returns the location of record i for messages; record i must already have been yielded.
        roots: folders that paths of cells are relative to; complete after the last record.
        notes: messages for the user; complete after the last record.
        license: SPDX identifier, or "unknown".
    """

    name: str
    kinds: Mapping[str, Kind]
    records: Iterable[Mapping[str, Any]]
    where: Callable[[int], str]
    roots: Sequence[Path]
    notes: Sequence[str] = ()
    license: str = "unknown"


@runtime_checkable
class ItemReader(Reader, Protocol):
    """Reader whose files also contain items: media, texts, or references to media.

    A reader of formats without arrays has the attribute `items_only = True`, and its `open` raises a DataError.
    """

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        """List the items of one or several files of the format, without decoding media; raise DataError for damaged
        files.
        """


class Folders:
    """The root folders of a table."""

    def __init__(self, root: Path, *, allow_absolute: bool) -> None:
        self._roots = [Path(os.path.abspath(root))]
        self._allow_absolute = allow_absolute

    @property
    def allow_absolute(self) -> bool:
        return self._allow_absolute

    @property
    def roots(self) -> Sequence[Path]:
        """The current roots; `place` and `add` may append to them."""
        return self._roots

    def add(self, folder: Path) -> int:
        """Return the index of a root, which is appended if it is new."""
        absolute = Path(os.path.abspath(folder))
        if absolute not in self._roots:
            self._roots.append(absolute)
        return self._roots.index(absolute)

    def place(self, path: str) -> tuple[str, int]:
        """Return the path relative to a root, and the index of the root."""
        if not path or "\0" in path:
            raise DataError(f"{path!r} is not a path")
        if path[0] != "/" and "//" not in path and "./" not in path:
            return path, 0
        if "://" in path:
            raise DataError(f"{path:.80} is a URL; download the file first, since URLs are not fetched")
        root = self._roots[0].as_posix()
        absolute = posixpath.normpath(posixpath.join(root, path))
        if absolute.startswith(f"{root.rstrip('/')}/"):
            return absolute[len(root.rstrip("/")) + 1 :], 0
        if not self._allow_absolute:
            raise DataError(
                f"{path:.200} is outside of {root}; pass the common folder as root (--root), or allow such "
                "paths with allow_absolute=True (--allow-absolute)"
            )
        top = Path(absolute).anchor
        return absolute[len(top) :], self.add(Path(top))


def kind_of_name(name: str) -> Kind | None:
    return _KINDS.get(suffix_of(name).lower())


def suffix_of(name: str) -> str:
    """Return the suffix from the last dot of the base name; "" for names without a dot or with only a leading dot."""
    base = name.rpartition("/")[2]
    stem, dot, rest = base.rpartition(".")
    return dot + rest if stem else ""
