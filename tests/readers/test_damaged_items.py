"""Test that damaged sources of items raise errors of this package, and nothing else."""

import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from unialign.data import Items
from unialign.errors import UniAlignError

ROUNDS = 60


def columns() -> dict[str, pa.Array]:
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return {
        "image": pa.array([{"bytes": b"x" * i, "path": "a.png"} if i % 3 else None for i in range(40)], media),
        "text": pa.array([f"text {i}" for i in range(40)]),
        "vector": pa.array([[1.0, i] for i in range(40)], pa.list_(pa.float32())),
    }


def write_shard(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for i in range(12):
            for field in ("jpg", "txt", "cls"):
                member = tarfile.TarInfo(f"{i}{'ü' * 8 * i}.{field}")
                member.size = i
                archive.addfile(member, io.BytesIO(b"x" * i))


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.parquet": lambda path: pq.write_table(pa.table(columns()), path, row_group_size=15),
    "a.feather": lambda path: feather.write_feather(pa.table(columns()), path, compression="uncompressed", chunksize=9),
    "a.tar": write_shard,
    "a.npz": lambda path: np.savez(path, rna=np.ones((5, 4)), ids=np.array(list("abcde"))),
    "a.csv": lambda path: path.write_text("id,image,text\n" + "".join(f'{i},{i}.png,"x, {i}"\n' for i in range(40))),
    "a.jsonl": lambda path: path.write_text(
        "".join(
            json.dumps({"id": str(i), "cells": {"image": {"path": f"{i}.png"}}, "label": "x"}) + "\n" for i in range(40)
        )
    ),
}


def damaged(data: bytes, random_numbers: random.Random) -> bytes:
    place = random_numbers.randrange(len(data))
    how = random_numbers.randrange(4)
    if how == 0:
        return data[:place]
    if how == 1:
        return data[:place] + bytes([random_numbers.randrange(256)]) + data[place + 1 :]
    if how == 2:
        return data[:place] + random_numbers.randbytes(8) + data[place + random_numbers.randrange(1, 64) :]
    return (
        data[:place]
        + random_numbers.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"[" * 8])
        + data[place + 8 :]
    )


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_raise_only_errors_of_this_package(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    expected = Items.open(tmp_path / name).fingerprint
    random_numbers, messages = random.Random(0), list[str]()
    for _ in range(ROUNDS):
        (tmp_path / name).write_bytes(damaged(whole, random_numbers))
        try:
            Items.open(tmp_path / name)
        except UniAlignError as error:
            messages.append(str(error))
    assert len(messages) > ROUNDS // 5
    assert [text for text in messages if name not in text and "'a'" not in text] == []
    (tmp_path / name).write_bytes(whole)
    assert Items.open(tmp_path / name).fingerprint == expected


def test_names_that_the_parsers_do_not_check(tmp_path: Path) -> None:
    feather.write_feather(pa.table({"text": ["a"], "nämex": ["b"]}), tmp_path / "a.feather", compression="uncompressed")
    data = (tmp_path / "a.feather").read_bytes()
    (tmp_path / "a.feather").write_bytes(data.replace("nämex".encode(), b"n\xff\xffmex"))
    with pytest.raises(UniAlignError, match=r"a\.feather is not a readable Arrow file"):
        Items.open(tmp_path / "a.feather")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"")
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data.replace(b"x.npy", b"\0.npy"))
    with pytest.raises(UniAlignError, match=r"a\.npz"):
        Items.open(tmp_path / "a.npz")
