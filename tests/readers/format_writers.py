"""Write vectors and their ids in the formats of other tools."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather

from small_files import DIM, ITEMS

__all__ = ["IDS", "WRITERS", "write_csv", "write_faiss"]

IDS = [f"k{i}" for i in range(ITEMS)]


def write_csv(path: Path, z: np.ndarray, mark: str) -> None:
    head = ["id", "title", "score", *(f"e{d}" for d in range(DIM))]
    lines = [[f"k{i}", '"a, b; c"', f"0.{i}", *map(repr, map(float, row))] for i, row in enumerate(z)]
    path.write_text("\n".join(mark.join(line) for line in [head, *lines]), "utf-8-sig")


def write_vectors_as_text(path: Path, z: np.ndarray) -> None:
    path.write_text("id\tvector\n" + "".join(f"k{i}\t{json.dumps(row.tolist())}\n" for i, row in enumerate(z)))


def write_jsonl(path: Path, z: np.ndarray) -> None:
    lines = [{"id": f"k{i}", "title": "x", "score": i / 7, "embedding": row.tolist()} for i, row in enumerate(z)]
    path.write_text("\n".join(map(json.dumps, lines)))


def write_stream(path: Path, z: np.ndarray) -> None:
    batch = pa.record_batch({"vector": pa.array(list(z)), "id": IDS})
    with pa.ipc.new_stream(path, batch.schema) as stream:
        for start in range(0, ITEMS, 25):
            stream.write_batch(batch.slice(start, 25))


def write_words(path: Path, z: np.ndarray, head: str) -> None:
    path.write_text(head + "".join(f"k{i} {' '.join(map(str, row))} \n" for i, row in enumerate(z)))


def write_hdf5(path: Path, z: np.ndarray, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("vectors", data=z, **options)
        file["id"] = IDS


def write_faiss(path: Path, z: np.ndarray, *, fourcc: bytes = b"IxFI", metric: int = 0) -> None:
    header = struct.pack("<iqqqBi", DIM, len(z), 1 << 20, 1 << 20, 1, metric) + (b"\0" * 4 if metric > 1 else b"")
    flat = fourcc + header + struct.pack("<Q", z.size) + z.astype("<f4").tobytes()
    ids = struct.pack("<Q", len(z)) + (np.arange(len(z)) + 100).astype("<i8").tobytes()
    path.write_bytes(b"IxMp" + header + flat + ids)


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "comma.csv": lambda path, z: write_csv(path, z, ","),
    "semicolon.csv": lambda path, z: write_csv(path, z, ";"),
    "tab.txt": lambda path, z: write_csv(path, z, "\t"),
    "vector.tsv": write_vectors_as_text,
    "embedding.jsonl": write_jsonl,
    "embedding.safetensors": write_jsonl,
    "a.feather": lambda path, z: feather.write_feather(pa.table({"vector": list(z), "id": IDS}), path, chunksize=25),
    "a.arrow": write_stream,
    "words.vec": lambda path, z: write_words(path, z, f"{ITEMS} {DIM}\n"),
    "glove.txt": lambda path, z: write_words(path, np.hstack([z, z]), ""),
    "plain.h5": write_hdf5,
    "packed.h5": lambda path, z: write_hdf5(path, z, chunks=(7, 8), compression="gzip"),
    "inner.faiss": write_faiss,
    "l1.index": lambda path, z: write_faiss(path, z, fourcc=b"IxFl", metric=2),
}
