"""`Table`: the columns of items with their name, kinds of media, root folders and license."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unialign._checks import check_choice, unsafe_name
from unialign.errors import ConfigError, DataError
from unialign.io import canonical_json, digest
from unialign.items._columns import Columns
from unialign.items._lines import lines_of
from unialign.media import KINDS, Kind

__all__ = [
    "UNKNOWN_LICENSE",
    "Table",
    "absolute_roots",
    "check_kinds",
    "merged_kinds",
    "merged_license",
    "merged_roots",
]

UNKNOWN_LICENSE = "unknown"


@dataclass(frozen=True, eq=False)
class Table:
    """Content of an item table.

    Attributes:
        kinds: modality -> kind of media, in the order of the modalities.
        roots: folders that the paths of cells are relative to.
        license: SPDX expression, or "unknown".
        sealed: sha256 of the lines, if known from a file.
        notes: messages about how the source was read.
    """

    name: str
    kinds: Mapping[str, Kind]
    roots: tuple[Path, ...]
    license: str
    columns: Columns
    sealed: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def lines_sha256(self) -> str:
        return self.sealed or digest(lines_of(self.columns))

    @cached_property
    def fingerprint(self) -> str:
        modalities = [[name, kind] for name, kind in self.kinds.items()]
        return digest(canonical_json({"modalities": modalities, "lines": self.lines_sha256}))


def check_kinds(kinds: Mapping[str, str]) -> None:
    for name, kind in kinds.items():
        if problem := unsafe_name(name):
            raise ConfigError(f"the modality {name!r} cannot be a file name: {problem}")
        check_choice(f"kind of the modality {name!r},", kind, KINDS)


def absolute_roots(roots: Iterable[str | os.PathLike[str]]) -> tuple[Path, ...]:
    return tuple(Path(os.path.abspath(root)) for root in roots)


def merged_roots(tables: Sequence[Table]) -> tuple[tuple[Path, ...], list[list[int]]]:
    """Return the distinct roots, and the new number of each root of each table."""
    roots = list(dict.fromkeys(root for table in tables for root in table.roots))
    return tuple(roots), [[roots.index(root) for root in table.roots] for table in tables]


def merged_kinds(tables: Sequence[Table]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for table in tables:
        for name, kind in table.kinds.items():
            if kinds.setdefault(name, kind) != kind:
                raise DataError(
                    f"{name!r} is of kind {kinds[name]!r} in one table and of kind {kind!r} in {table.name!r}; give "
                    "the modalities different names"
                )
    return kinds


def merged_license(tables: Sequence[Table]) -> str:
    """Return the SPDX expression of all licenses, or "unknown" if one is unknown."""
    licenses = list(dict.fromkeys(table.license for table in tables))
    if UNKNOWN_LICENSE in licenses:
        return UNKNOWN_LICENSE
    if len(licenses) == 1:
        return licenses[0]
    return " AND ".join(f"({text})" if " OR " in text else text for text in licenses)
