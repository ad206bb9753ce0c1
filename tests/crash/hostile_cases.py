"""Build malicious safetensors files."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["Bomb", "payloads"]


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.canary),))


def payloads(canary: Path) -> dict[str, bytes]:
    archive, torch_file = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("model/data.pkl", pickle.dumps(Bomb(canary)))
    torch.save({"image": Bomb(canary)}, torch_file)
    one = {"dtype": "F32", "shape": [4, 2]}
    return {
        **{f"pickle of protocol {n}": pickle.dumps([Bomb(canary)] * 3, n) for n in range(6)},
        "zip archive": archive.getvalue(),
        "torch.save": torch_file.getvalue(),
        "header of 10 GB": struct.pack("<Q", 10 * 2**30) + b'{"image": {}}' + bytes(32),
        "header of 2^64 bytes": struct.pack("<Q", 2**64 - 1) + b'{"image": {}}' + bytes(32),
        "header of a negative length": struct.pack("<q", -1) + b"{}" + bytes(32),
        "header without end": _file(b'{"image": {"dtype": "F32", '),
        "header that is no UTF-8": _file(
            b'{"im\xff\xfeage": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}'
        ),
        "header of a list": _file(b"[1, 2, 3]" + b" " * 20),
        "header of deep nesting": _file(b'{"image": ' + b"[" * 50_000),
        "overlapping tensors": _tensors(image=one | {"data_offsets": [0, 32]}, text=one | {"data_offsets": [16, 48]}),
        "tensors beyond the end": _tensors(image=one | {"data_offsets": [8192, 8224]}),
        "tensors before the start": _tensors(image=one | {"data_offsets": [-32, 0]}),
        "offsets of 2^64": _tensors(image=one | {"data_offsets": [0, 2**64]}),
        "shape that overflows": _tensors(
            image={"dtype": "F32", "shape": [2**33, 2**31 + 1], "data_offsets": [0, 2**66 % 2**64 + 2**35]}
        ),
        "shape larger than the bytes": _tensors(image={"dtype": "F32", "shape": [4, 200], "data_offsets": [0, 32]}),
        "negative shape": _tensors(image={"dtype": "F32", "shape": [-4, -2], "data_offsets": [0, 32]}),
        "shape of texts": _tensors(image={"dtype": "F32", "shape": ["4", "x"], "data_offsets": [0, 32]}),
        "nothing": b"",
        "one byte": b"{",
        "eight bytes": struct.pack("<Q", 2),
    }


def _file(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(64)


def _tensors(**entries: Any) -> bytes:
    return _file(json.dumps(entries).encode())
