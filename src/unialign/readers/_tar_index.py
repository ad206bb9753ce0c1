"""Index the members of WebDataset shards: key, field, and position of the bytes.

As in WebDataset, the key is the directory and the name up to the first dot of the base name; the field is the rest, in
lower case. Members with the same key need not be adjacent, and may be in different shards.
"""

import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unialign._checks import one_line
from unialign._plain_text import count
from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._file_mark import check_unchanged, file_mark
from unialign.readers._folder_files import is_unsafe_name

__all__ = ["Member", "TarIndex", "index_shards"]

# Maximum size of an extended header, which `tarfile` reads into memory.
_MAX_HEADER_BYTES = 1 << 17
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_SHOWN = 3


class Member(NamedTuple):
    """Position of a member."""

    shard: int
    offset: int
    size: int
    name: str


class _Positions:
    """Positions of one field, by row of the item; an item without the field has shard -1."""

    def __init__(self) -> None:
        self.shards, self.offsets, self.sizes = array("q"), array("q"), array("q")
        # Names in the archive that are not of the form KEY.FIELD.
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.shards)

    def add(self, row: int, shard: int, offset: int, size: int) -> None:
        missing = row - len(self.shards)
        for values, fill in ((self.shards, -1), (self.offsets, 0), (self.sizes, 0)):
            values.extend([fill] * missing)
        if row < len(self.shards):
            self.shards[row], self.offsets[row], self.sizes[row] = shard, offset, size
        else:
            self.shards.append(shard)
            self.offsets.append(offset)
            self.sizes.append(size)

    def has(self, row: int) -> bool:
        return row < len(self.shards) and self.shards[row] >= 0


@dataclass
class TarIndex:
    """Members of several shards.

    Attributes:
        keys: the items, in order of first appearance.
        counts: field -> number of items.
        skipped: reason -> members that are left out.
        notes: messages about truncated shards.
    """

    shards: Sequence[Path]
    keys: list[str] = field(default_factory=list)
    fields: dict[str, _Positions] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def member(self, row: int, name: str) -> Member | None:
        """Return the member of an item in a field."""
        found = self.fields.get(name)
        if found is None or not found.has(row):
            return None
        original = found.names.get(row) or f"{self.keys[row]}.{name}"
        return Member(found.shards[row], found.offsets[row], found.sizes[row], original)

    def skipped_notes(self) -> list[str]:
        return [
            f"{count(len(names), 'member')} left out ({reason}): {', '.join(map(repr, names[:_SHOWN]))}"
            + (", ..." if len(names) > _SHOWN else "")
            for reason, names in self.skipped.items()
        ]


def index_shards(shards: Sequence[Path], *, allow_truncated: bool) -> TarIndex:
    """Read the headers of all members; raise DataError for a damaged or truncated shard and for a repeated name."""
    index, rows = TarIndex(shards), dict[str, int]()
    for shard, path in enumerate(shards):
        mark = file_mark(path)
        for info in _members(path, mark[0], allow_truncated, index.notes):
            if reason := _unusable(info):
                index.skipped.setdefault(reason, []).append(info.name)
                continue
            name = info.name.removeprefix("./")
            folder = name.rfind("/") + 1
            dot = name.find(".", folder)
            if dot < 0:
                index.skipped.setdefault("names without a dot have no field", []).append(name)
                continue
            key, extension = name[:dot], name[dot + 1 :]
            row = rows.setdefault(key, len(rows))
            if row == len(index.keys):
                index.keys.append(key)
            _add(index, row, shard, info, name, extension)
        check_unchanged(path, mark)
    return index


def _add(index: TarIndex, row: int, shard: int, info: tarfile.TarInfo, name: str, extension: str) -> None:
    own = extension.lower()
    positions = index.fields.setdefault(own, _Positions())
    if positions.has(row):
        first = f"byte {positions.offsets[row]:,} of {index.shards[positions.shards[row]]}"
        raise DataError(
            f"{name!r} occurs twice: at {first} and at byte {info.offset_data:,} of {index.shards[shard]}; write the "
            "shards again with different keys"
        )
    positions.add(row, shard, info.offset_data, info.size)
    index.counts[own] += 1
    if name != f"{index.keys[row]}.{own}":
        positions.names[row] = name


class _BoundedInfo(tarfile.TarInfo):
    """Header of a member; extended headers with an extreme size raise an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedInfo":
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header has {info.size:,} bytes")
        return info


def _members(path: Path, size: int, allow_truncated: bool, notes: list[str]) -> Iterator[tarfile.TarInfo]:
    with open_regular(path) as stream:
        last = ""
        try:
            with tarfile.open(fileobj=stream, mode="r:", tarinfo=_BoundedInfo, encoding="utf-8") as archive:
                while (info := archive.next()) is not None:
                    # Clear the list of members, which would need a kilobyte per member.
                    archive.members.clear()  # type: ignore[attr-defined]
                    # A negative size would cause an infinite loop over earlier members.
                    if info.size < 0 or (info.isreg() and info.offset_data + info.size > size):
                        raise tarfile.ReadError("unexpected end of data")
                    last = info.name
                    if not info.isdir():
                        yield info
                end = archive.offset
            problem = _problem_at_end(stream, end, size)
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise DataError(f"{path} cannot be read ({error.strerror or error}); check the disk") from None
            problem = one_line(error)
    if not problem:
        return
    place = f"after {last!r}" if last else "at its start"
    if not allow_truncated:
        raise DataError(
            f"{path} is damaged or truncated {place} ({problem}); download it again, or use its complete members with "
            "allow_truncated=True (--allow-truncated)"
        )
    notes.append(f"{path} is damaged or truncated {place} ({problem}); only the members before are used")


def _problem_at_end(stream: BinaryIO, end: int, size: int) -> str:
    """Return what is wrong with the end of an archive, a block of zeros that must be at the end of the file; "" if
    nothing.
    """
    stream.seek(end)
    rest = stream.read(1 << 20)
    if not rest:
        return "the block of zeros at the end is missing"
    if rest.strip(b"\0"):
        return f"there are {size - end:,} bytes after its end"
    return ""


def _unusable(info: tarfile.TarInfo) -> str:
    """Return the reason why a member is left out, or ""."""
    parts = info.name.split("/")
    if info.issym() or info.islnk():
        return "links are not followed"
    if not info.isreg() or info.issparse():
        return "special or sparse files are not read"
    if info.name.startswith("/") or ".." in parts:
        return "their paths lead out of the archive"
    if is_unsafe_name(info.name):
        return "names are not UTF-8, have control characters or are too long"
    return "hidden files" if parts[-1].startswith(".") else ""
