"""Hostile texts and vectors."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from media.hostile_case import ABSENT, Cases, nothing, sparse
from unialign.media import Decoding, MediaLimits

__all__ = ["CASES"]

CASES = Cases()
_VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
_noise = np.random.default_rng(0).bytes(50_000)

CASES.add("marked.txt", "text", "Grüße", b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe\r\n")
CASES.add("latin.txt", "text", "bad-utf8", b"Gr\xfc\xdfe")
CASES.add("utf-16.txt", "text", "bad-utf8", "Grüße".encode("utf-16"))
CASES.add("surrogate.txt", "text", "bad-utf8", b"\xed\xa0\x80")
CASES.add("cut.txt", "text", "bad-utf8", "Grüß".encode()[:-1])
CASES.add("blank.txt", "text", ABSENT, b" \t\r\n\xc2\xa0\n")
CASES.add("mark.txt", "text", ABSENT, b"\xef\xbb\xbf")
CASES.add("zero.txt", "text", "a\0b", b"a\0b")
CASES.add("line.txt", "text", "too-large", sparse(2 << 30))
CASES.add("million.txt", "text", "too-long", b"a" * 1_000_001)
CASES.add("sparse.txt", "text", "too-long", sparse(500 << 20))


def _npy(array: Any, **changes: Any) -> bytes:
    """Return the file of an array, with changes of its header."""
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, np.lib.format.header_data_from_array_1_0(np.asarray(array)) | changes)
    return data.getvalue() + np.asarray(array).tobytes(order="A")


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def _zeros(path: Path) -> None:
    """Write 256 MiB of zeros as a small archive of (2^20, 64) numbers."""
    header = _npy(np.empty((0, 64), np.float32), shape=(1 << 20, 64))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as file,
    ):
        file.write(header)
        for _ in range(64):
            file.write(bytes(1 << 22))


def _safetensors(array: Any, dtype: str, **changes: Any) -> bytes:
    data = np.asarray(array).tobytes()
    facts = {"dtype": dtype, "shape": np.shape(array), "data_offsets": [0, len(data)]} | changes
    header = json.dumps({"x": facts}).encode()
    return struct.pack("<Q", len(header)) + header + data


def _hdf5(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["x"] = _VECTORS
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=_VECTORS, chunks=(2, 3), compression="gzip")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("outside", (4, 3), "f4", external=[("other.bin", 0, h5py.h5f.UNLIMITED)])
        file["names"] = ["a", "b", "c", "d"]
        sparse = file.create_group("obsm/s")
        sparse.attrs["encoding-type"], sparse.attrs["shape"] = "csr_matrix", (2, 5)
        sparse["data"], sparse["indices"], sparse["indptr"] = np.float32([7, 8]), [1, 4], [0, 0, 2]


_infinite = _VECTORS.copy()
_infinite[2, 1] = np.inf
_F32 = {"row": 1}

CASES.add("vector.npy", "array", _VECTORS[1], _npy(_VECTORS[1]))
CASES.add("rows.npy", "array", _VECTORS[1], _npy(_VECTORS), {"array": "rows.npy", "row": 1})
CASES.add("columns.npy", "array", _VECTORS[1], _npy(np.asfortranarray(_VECTORS)), {"array": "columns.npy", "row": 1})
CASES.add("ints.npy", "array", _VECTORS[1], _npy(_VECTORS.astype(">i2")), {"array": "ints.npy", "row": 1})
CASES.add("matrix.npy", "array", "wrong-shape", _npy(_VECTORS))
CASES.add("cube.npy", "array", "wrong-shape", _npy(np.zeros((2, 3, 4))), {"array": "cube.npy", "row": 0})
CASES.add("scalar.npy", "array", "wrong-shape", _npy(np.float32(1)))
CASES.add("text.npy", "array", "undecodable", _npy(np.array(["a", "b"])))
CASES.add("past.npy", "array", "wrong-shape", _npy(_VECTORS), {"array": "past.npy", "row": 4})
CASES.add("dim.npy", "array", "wrong-shape", _npy(_VECTORS), {"array": "dim.npy", "row": 0}, decoding=Decoding(dim=4))
CASES.add("pickle.npy", "array", "undecodable", _npy(np.zeros(1), descr="|O"))
CASES.add("pickled.npy", "array", "undecodable", pickle.dumps([1.0, 2.0]))
CASES.add("many.npy", "array", "truncated", _npy(_VECTORS, shape=(1 << 50, 3)), {"array": "many.npy", "row": 1})
CASES.add("negative.npy", "array", "undecodable", _npy(_VECTORS, shape=(-4, -3)), {"array": "negative.npy", "row": 1})
CASES.add("infinite.npy", "array", "not-finite", _npy(_infinite), {"array": "infinite.npy", "row": 2})
CASES.add("double.npy", "array", "not-finite", _npy(np.full(3, 1e300)))
CASES.add("zeros.npy", "array", np.zeros(3, np.float32), _npy(np.zeros(3)))
CASES.add(
    "member.npz",
    "array",
    _VECTORS[2],
    _zip({"x.npy": _npy(_VECTORS), "y.npy": b""}),
    {"array": "member.npz", "key": "x", "row": 2},
)
CASES.add(
    "two.npz", "array", "wrong-shape", _zip({"x.npy": _npy(_VECTORS), "y.npy": b""}), {"array": "two.npz", "row": 2}
)
CASES.add(
    "other.npz", "array", "missing-file", _zip({"x.npy": _npy(_VECTORS)}), {"array": "other.npz", "key": "z", "row": 2}
)
CASES.add("zeros.npz", "array", np.zeros(64, np.float32), _zeros, {"array": "zeros.npz", "row": 1_000_000})
CASES.add(
    "bomb.npz",
    "array",
    "too-large",
    _zip({"x.npy": _npy(np.zeros(1 << 20))}, zipfile.ZIP_DEFLATED),
    limits=MediaLimits(bytes=1 << 22),
)
CASES.add(
    "lies.npz",
    "array",
    "truncated",
    _zip({"x.npy": _npy(_VECTORS, shape=(1 << 40, 3))}, zipfile.ZIP_DEFLATED),
    {"array": "lies.npz", "row": 2},
)
CASES.add("noise.npz", "array", "undecodable", b"PK\x03\x04" + _noise)
CASES.add(
    "half.safetensors",
    "array",
    np.float32([1.5, -2, 0]),
    _safetensors(np.uint16([[0x3FC0, 0xC000, 0]]), "BF16"),
    {"array": "half.safetensors", "key": "x", "row": 0},
)
CASES.add("header.safetensors", "array", "truncated", struct.pack("<Q", 1 << 40) + b"{}")
CASES.add(
    "overlap.safetensors",
    "array",
    "undecodable",
    _safetensors(_VECTORS, "F32", shape=[400, 3]),
    {"array": "overlap.safetensors", "row": 0},
)
CASES.add(
    "outside.safetensors",
    "array",
    "truncated",
    _safetensors(_VECTORS, "F32", data_offsets=[480, 528]),
    {"array": "outside.safetensors", "row": 0},
)
CASES.add("good.h5", "array", _VECTORS[3], _hdf5, {"array": "good.h5", "key": "x", "row": 3})
for _key, _row, _expected in (
    ("obsm/s", 1, np.float32([0, 7, 0, 0, 8])),
    ("obsm/s", 0, np.zeros(5, np.float32)),
    ("elsewhere", 0, "link-outside"),
    ("outside", 0, "link-outside"),
    ("names", 0, "wrong-shape"),
    ("nothing", 0, "missing-file"),
    ("x", 9, "wrong-shape"),
):
    CASES.add(
        f"{_key}-{_row}.h5".replace("/", "-"),
        "array",
        _expected,
        nothing,
        {"array": "good.h5", "key": _key, "row": _row},
    )
CASES.add(
    "noise.h5", "array", "undecodable", b"\x89HDF\r\n\x1a\n" + _noise, {"array": "noise.h5", "key": "x", "row": 0}
)
