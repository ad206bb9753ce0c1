"""Read .npz archives: uncompressed members in place, compressed members as streams."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._array_items import array_file, array_items
from unialign.readers._entry import ArrayEntry, EmbeddingFile, without_single_axes
from unialign.readers._foreign import foreign_archive
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._rows import FileRegion, StreamRows, rows_per_chunk
from unialign.readers.npy import npy_entry, npy_header

__all__ = ["NpzReader"]

# Maximum size in bytes of a compressed array in column-major order, which cannot be read row by row.
_MAX_COLUMN_ORDER = 1 << 30
# Size of a local file header before the name, and offset of the lengths of the name and the extra field.
_LOCAL_HEADER, _LENGTHS = 30, 26


class NpzReader:
    name = "npz"
    suffixes = (".npz",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")

    def open(self, path: Path) -> EmbeddingFile:
        with open_regular(path) as file:
            try:
                archive = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise DataError(f"{path} is a damaged .npz archive ({error}); write it again") from None
            members = [info for info in archive.infolist() if info.filename and not info.is_dir()]
            other = foreign_archive(path, archive)
            if other is not None:
                raise DataError(f"{path} is {other}")
            return EmbeddingFile.at(path, self.name, [_member(path, file, archive, info) for info in members])

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return array_items([array_file(path, self.open(path)) for path in paths], options)


def _member(path: Path, file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayEntry:
    key = info.filename.removesuffix(".npy")
    where = f"{path}, entry {key!r}"
    if key == info.filename:
        return ArrayEntry.ignored(key, "not a .npy array")
    if info.flag_bits & 1:
        raise DataError(f"{where} is encrypted; write it without a password")
    try:
        with archive.open(info) as member:
            header = npy_header(cast(BinaryIO, member), where)
            header_bytes = member.tell()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"{where} cannot be read ({error}); write the archive again") from None
    if header.dtype.hasobject:
        return ArrayEntry.pickled(key, where)
    if info.compress_type == zipfile.ZIP_STORED:
        # The name and the extra field may have different lengths in the local header and in the central directory.
        file.seek(info.header_offset + _LENGTHS)
        lengths = file.read(4)
        start = info.header_offset + _LOCAL_HEADER + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        return npy_entry(key, path, file, start + header_bytes, header, where)
    # The offset counts from the start of the decompressed member.
    region = FileRegion(path, header_bytes, without_single_axes(header.shape), header.dtype.str, header.order)
    if info.file_size != header_bytes + region.bytes:
        raise DataError(
            f"{where} has {info.file_size} bytes, but its header declares {header_bytes + region.bytes}; write it again"
        )
    chunks = partial(_row_chunks, region, info.filename, where)
    rows = partial(StreamRows, chunks, region.shape, region.dtype)
    return ArrayEntry(key, region.shape, region.dtype, rows, partial(_load, region, info.filename, where))


def _load(region: FileRegion, member: str, where: str) -> NDArray[Any]:
    data, place = bytearray(region.bytes), 0
    for chunk in _inflated(region, member, 1 << 22, where):
        data[place : place + len(chunk)] = chunk
        place += len(chunk)
    return np.frombuffer(data, region.stored).reshape(region.shape, order=region.order)


def _row_chunks(region: FileRegion, member: str, where: str) -> Iterator[NDArray[Any]]:
    if region.order == "F":
        if region.bytes > _MAX_COLUMN_ORDER:
            raise DataError(
                f"{where} is a compressed array in column-major order with {region.bytes:,} bytes, but at most "
                f"{_MAX_COLUMN_ORDER:,} can be read; save numpy.ascontiguousarray(x), or use numpy.savez instead of "
                f"savez_compressed"
            )
        yield np.ascontiguousarray(_load(region, member, where))
        return
    row_bytes = region.shape[1] * region.stored.itemsize
    for chunk in _inflated(region, member, rows_per_chunk(row_bytes) * row_bytes, where):
        yield np.frombuffer(chunk, region.stored).reshape(-1, region.shape[1])


def _inflated(region: FileRegion, member: str, step: int, where: str) -> Iterator[bytearray]:
    try:
        with open_regular(region.path) as file, zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            stream.read(region.offset)
            while chunk := bytearray(stream.read(step)):
                yield chunk
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{where} is damaged ({error}); write the archive again") from None
