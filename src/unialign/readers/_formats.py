"""The arrays in one file or folder, found from headers alone: what is read later, and how. Nothing is ever unpickled.

The kind is told from the content, so that a wrong suffix does not matter.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._arrays import CHUNK_BYTES, Block, FileRows, Rows, StreamRows
from unialign.readers._parquet import parquet_entries
from unialign.readers._types import Entry, File

__all__ = ["open_file", "store_file"]

EXPECTED = "expected .npz, .npy, .safetensors, .parquet or the folder of an EmbeddingStore"

# A safetensors header is some hundred bytes an array; the bound keeps a hostile one out of memory.
_MAX_HEADER = 1 << 26
# A compressed array in column order cannot be read row by row: it must fit into memory.
_MAX_COLUMN_ORDER = 1 << 30
# How files of a kind begin, in words.
_MAGIC = {".npz": "'PK', as a zip archive", ".npy": "'NUMPY'", ".parquet": "'PAR1'", ".safetensors": "a JSON header"}
_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "|b1", "I8": "|i1", "I16": "<i2",
    "I32": "<i4", "I64": "<i8", "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip


def open_file(path: Path) -> File:
    """What a path holds; DataError names it where it cannot be read."""
    if path.is_dir():
        if not (path / "store.json").exists():
            raise DataError(f"{path} is a folder without store.json, so no EmbeddingStore; {EXPECTED}")
        return store_file(EmbeddingStore.open(path), str(path))
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(16)
            return _by_content(path, file, head, size)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; {EXPECTED}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {EXPECTED}") from None


def store_file(store: EmbeddingStore, label: str) -> File:
    """The default modalities of a store; its arrays are read plainly, not mapped."""
    entries: dict[str, Entry] = {}
    for name in store.columns:
        array_NW = store.array(name)  # checks the header; no page of the map is touched
        if store.path is None:
            entries[name] = Entry.of_array(name, array_NW)
        else:
            path = store.path / "arrays" / f"{name}.npy"
            offset = path.stat().st_size - array_NW.nbytes
            entries[name] = _entry(name, Block(path, offset, array_NW.shape, str(array_NW.dtype)))
        mask_N = store.present(name)
        if not mask_N.all():
            entries[f"present.{name}"] = Entry.of_array(f"present.{name}", mask_N)
    if len(np.unique(store.ids)) < store.items:
        entries["ids"] = Entry.of_array("ids", store.ids)
    if (store.labels >= 0).any():
        entries["labels"] = Entry.of_array("labels", store.labels)
    return File(label, "store", store.name, entries, default=store.modalities)


def _by_content(path: Path, file: BinaryIO, head: bytes, size: int) -> File:
    stem = path.name.split(".")[0] or path.name
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return File(str(path), "npz", stem, _npz(path, file, size))
    if head[:6] == b"\x93NUMPY":
        file.seek(0)
        shape, order, dtype = _npy_header(file, str(path))
        block = Block(path, file.tell(), shape, dtype, order)
        return File(str(path), "npy", stem, {"": _checked(block, size, str(path))})
    if head[:4] == b"PAR1":
        return File(str(path), "parquet", stem, parquet_entries(path))
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and head[8:9] != b"{":
        raise DataError(f"{path} is a pickle, which can run code and is never read; save the arrays with numpy.savez")
    if len(head) >= 9 and head[8:9] == b"{":
        return File(str(path), "safetensors", stem, _safetensors(path, file, size))
    if size and path.suffix in _MAGIC:
        raise DataError(f"{path} is damaged: a {path.suffix} file begins with {_MAGIC[path.suffix]}; write it again")
    what = "is empty" if size == 0 else "is none of the kinds that are read"
    raise DataError(f"{path} {what}; {EXPECTED}")


def _entry(key: str, block: Block) -> Entry:
    return Entry(key, block.shape, block.dtype, lambda: FileRows(block), block.load)


def _checked(block: Block, size: int, where: str) -> Entry:
    _check_dtype(block.dtype, where)
    if block.offset + block.bytes > size:
        raise DataError(
            f"{where}: {block.shape} of {block.dtype} need {block.bytes} bytes, the file has {size - block.offset} for "
            "them; it was cut off, write it again"
        )
    return _entry("", block)


def _check_dtype(dtype: str, where: str) -> None:
    if dtype == "object":
        raise DataError(f"{where} holds pickled objects, which can run code and are never read; save a plain array")


def _npy_header(file: BinaryIO, where: str) -> tuple[tuple[int, ...], str, str]:
    """Shape, order and dtype ("object" for anything that would have to be unpickled)."""
    try:
        version = np.lib.format.read_magic(file)
        readers: dict[tuple[int, int], Callable[[Any], Any]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"version {version}, expected (1, 0) or (2, 0)")
        shape, fortran, dtype = readers[version](file)
        if any(isinstance(length, bool) or length < 0 for length in shape):
            raise ValueError(f"its shape is {shape}")
    except Exception as error:  # hostile input: the header's parser may raise anything
        raise DataError(f"{where} is no plain .npy array ({type(error).__name__}: {error}); write it again") from None
    if dtype.hasobject:
        return shape, "C", "object"
    return shape, "F" if fortran and len(shape) > 1 else "C", dtype.str


def _npz(path: Path, file: BinaryIO, size: int) -> dict[str, Entry]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path} is a damaged .npz archive ({error}); write it again") from None
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.filename.endswith(("data.pkl", ".pickle")) for info in infos):
        raise DataError(
            f"{path} is an archive of `torch.save`, a pickle, which can run code and is never read; save the tensors "
            "with safetensors.torch.save_file"
        )
    entries: dict[str, Entry] = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        where = f"{path}, entry {key!r}"
        if key == info.filename:
            entries[key] = Entry.ignored(key, "no .npy array")
        elif info.flag_bits & 1:
            raise DataError(f"{where} is encrypted; write it without a password")
        else:
            entries[key] = _member(path, archive, info, key, where, size)
    return entries


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str, where: str, size: int) -> Entry:
    try:
        with archive.open(info) as member:
            shape, order, dtype = _npy_header(member, where)  # type: ignore[arg-type]
            header = member.tell()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"{where} cannot be read ({error}); write the archive again") from None
    if dtype == "object":
        return Entry.refused(key, f"{where} holds pickled objects, which can run code and are never read")
    if info.compress_type == zipfile.ZIP_STORED:
        # The bytes lie in the archive as they are. The lengths of name and extra field there may differ from the
        # directory's.
        with open_regular(path) as file:
            file.seek(info.header_offset + 26)
            lengths = file.read(4)
        start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        block = Block(path, start + header, shape, dtype, order)
        _checked(block, size, where)
        return _entry(key, block)
    block = Block(path, header, shape, dtype, order)
    if info.file_size != header + block.bytes:
        raise DataError(f"{where} has {info.file_size} bytes, its header says {header + block.bytes}; write it again")
    return _compressed(path, info.filename, key, block, where)


def _compressed(path: Path, member: str, key: str, block: Block, where: str) -> Entry:
    def whole() -> NDArray[Any]:
        data = bytearray(block.bytes)
        view = memoryview(data)
        for start, piece in _inflated(path, member, block.offset, CHUNK_BYTES, where):
            view[start : start + len(piece)] = piece
        return np.frombuffer(data, block.stored).reshape(block.shape, order="F" if block.order == "F" else "C")

    def pieces() -> Iterator[NDArray[Any]]:
        if block.order == "F":
            if block.bytes > _MAX_COLUMN_ORDER:
                raise DataError(
                    f"{where} is compressed, in column order and {block.bytes} bytes large; save "
                    "numpy.ascontiguousarray(x), or use numpy.savez instead of savez_compressed"
                )
            yield np.ascontiguousarray(whole())
            return
        row = block.shape[1] * block.stored.itemsize
        step = max(1, CHUNK_BYTES // max(1, row)) * row
        for _, piece in _inflated(path, member, block.offset, step, where):
            yield np.frombuffer(piece, block.stored).reshape(-1, block.shape[1])

    def rows() -> Rows:
        return StreamRows(pieces, (block.shape[0], block.shape[1]), block.dtype)

    return Entry(key, block.shape, block.dtype, rows, whole)


def _inflated(path: Path, member: str, skip: int, step: int, where: str) -> Iterator[tuple[int, bytearray]]:
    """(place, bytes) of a compressed member behind its header, `step` bytes at a time; the last piece is shorter."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            stream.read(skip)
            place = 0
            while piece := bytearray(stream.read(step)):
                yield place, piece
                place += len(piece)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{where} is damaged ({error}); write the archive again") from None


def _safetensors(path: Path, file: BinaryIO, size: int) -> dict[str, Entry]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise DataError(f"{path} is no safetensors file, or it was cut off ({size} bytes); write it again")
    try:
        header = json.loads(file.read(length).decode("utf-8"))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        entries = {}
        places: list[tuple[int, int, str]] = []
        for key, about in header.items():
            if key == "__metadata__":
                continue
            begin, end = (int(x) for x in about["data_offsets"])
            places.append((begin, end, key))
            shape = tuple(int(x) for x in about["shape"])
            if about["dtype"] not in _SAFETENSORS:
                entries[key] = Entry.ignored(key, f"dtype {about['dtype']}")
                continue
            block = Block(path, 8 + length + begin, shape, _SAFETENSORS[about["dtype"]])
            if begin < 0 or min(shape, default=0) < 0 or end - begin != block.bytes:
                raise ValueError(f"{key!r} has {end - begin} bytes for {shape} of {about['dtype']}")
            _checked(block, size, f"{path}, tensor {key!r}")
            entries[key] = _entry(key, block)
        places.sort()
        for (_, end, one), (begin, _, other) in pairwise(places):
            if begin < end:
                raise ValueError(f"{one!r} and {other!r} overlap")
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no safetensors file ({error}); write it again") from None
    return entries
