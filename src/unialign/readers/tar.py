"""Read tar archives of media, as written by WebDataset; cells refer to bytes in the archives."""

import contextlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from unialign.errors import ConfigError, DataError
from unialign.io import open_regular
from unialign.media import KINDS, Kind
from unialign.readers._entry import EmbeddingFile
from unialign.readers._item_records import SUFFIXES, Folders, ItemOptions, ItemRecords, kind_of_name
from unialign.readers._no_arrays import no_arrays
from unialign.readers._tar_index import Member, TarIndex, index_shards

__all__ = ["TarReader"]

_CLASS_FIELD = "cls"
_MAX_CLASS_BYTES = 1024


class TarReader:
    """Reader of uncompressed tar archives; several archives are one table."""

    name = "tar"
    suffixes = (".tar",)
    items_only = True

    def can_read(self, path: Path, head: bytes) -> bool:
        if not head or not path.is_file():
            return False
        with open_regular(path) as file:
            block = file.read(tarfile.BLOCKSIZE)
        try:
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError:
            return False
        return True

    def open(self, path: Path) -> EmbeddingFile:
        raise no_arrays(path)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        index = index_shards(paths, allow_truncated=options.allow_truncated)
        fields = _fields(index, options)
        folders = Folders(options.root or paths[0].absolute().parent, allow_absolute=options.allow_absolute)
        first = paths[0].absolute()
        return ItemRecords(
            name=first.name.split(".")[0] if len(paths) == 1 else first.parent.name,
            kinds=_kinds(fields, options),
            records=_records(index, fields, options.values.get("label", _CLASS_FIELD).lower(), folders),
            where=lambda row: f"{first}, item {index.keys[row]!r}",
            roots=folders.roots,
            notes=[*index.notes, *index.skipped_notes(), *_left(index, fields)],
        )


def _fields(index: TarIndex, options: ItemOptions) -> dict[str, tuple[str, ...]]:
    if options.rules:
        fields = {
            name: tuple(place.lower().removeprefix(".") for place in rule) for name, rule in options.rules.items()
        }
        for name, own in fields.items():
            if not any(index.counts[field] for field in own):
                raise DataError(
                    f"the rule {', '.join(map(repr, own))} of {name!r} matches no member; the fields are "
                    f"{_listed(index)}"
                )
        return fields
    found: dict[str, list[str]] = {}
    for field in index.counts:
        kind = kind_of_name(f"x.{field}")
        if kind is not None:
            # "seg.png" is the modality "seg"; "png" is "image".
            found.setdefault(field.rpartition(".")[0] or kind, []).append(field)
    if not found:
        raise DataError(f"{index.shards[0]} has no members with media; the fields are {_listed(index)}")
    return {name: tuple(sorted(own, key=_preference)) for name, own in sorted(found.items(), key=_modality_order)}


def _preference(field: str) -> tuple[int, str]:
    suffix = f".{field.rpartition('.')[2]}"
    kind = kind_of_name(f"x{suffix}")
    return (SUFFIXES[kind].index(suffix) if kind else 0, field)


def _modality_order(pair: tuple[str, Any]) -> tuple[int, str]:
    name = pair[0]
    return (KINDS.index(name) if name in KINDS else len(KINDS), name)


def _kinds(fields: Mapping[str, tuple[str, ...]], options: ItemOptions) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for name, own in fields.items():
        found = {kind_of_name(f"x.{field}") or ("array" if field.endswith("npy") else None) for field in own}
        kind = options.kinds.get(name) or (next(iter(found)) if len(found) == 1 else None)
        if kind is None and name in KINDS:
            kind = name
        if kind is None:
            raise ConfigError(
                f"the fields {', '.join(own)} of {name!r} have no known kind; pass "
                f"kinds={{{name!r}: ...}} (--kind {name}=...)"
            )
        kinds[name] = kind
    return kinds


def _records(
    index: TarIndex, fields: Mapping[str, tuple[str, ...]], label: str, folders: Folders
) -> Iterator[dict[str, Any]]:
    places = [_place(path, folders) for path in index.shards]
    with contextlib.closing(_Shards(index.shards)) as shards:
        for row, key in enumerate(index.keys):
            cells = {}
            for name, own in fields.items():
                member = next((found for field in own if (found := index.member(row, field)) is not None), None)
                if member is not None:
                    cells[name] = {**places[member.shard], "at": [member.offset, member.size], "name": member.name}
            record: dict[str, Any] = {"id": key, "cells": cells}
            if (member := index.member(row, label)) is not None:
                record["label"] = shards.text(member)
            yield record


def _place(path: Path, folders: Folders) -> dict[str, Any]:
    absolute = path.absolute()
    if absolute.is_relative_to(folders.roots[0]):
        return {"path": absolute.relative_to(folders.roots[0]).as_posix()}
    return {"path": absolute.name, "root": folders.add(absolute.parent)}


class _Shards:
    """Read the texts of members; one shard is open at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._shard = paths, -1
        self._stream: BinaryIO | None = None

    def text(self, member: Member) -> str:
        if self._stream is None or self._shard != member.shard:
            self.close()
            self._shard, self._stream = member.shard, open_regular(self._paths[member.shard])
        self._stream.seek(member.offset)
        return self._stream.read(min(member.size, _MAX_CLASS_BYTES)).decode("utf-8", "replace").strip()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _left(index: TarIndex, fields: Mapping[str, tuple[str, ...]]) -> list[str]:
    used = {field for own in fields.values() for field in own}
    left = {field: number for field, number in index.counts.items() if field not in used and field != _CLASS_FIELD}
    return [f"no rule uses the fields {_counted(left)}"] if left else []


def _listed(index: TarIndex) -> str:
    return _counted(index.counts) or "none"


def _counted(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{field} ({number:,})" for field, number in found[:12]) + (", ..." if len(found) > 12 else "")
