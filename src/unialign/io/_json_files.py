"""Read and write JSON files with a checksum, without importing torch."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.errors import CheckpointError
from unialign.io._files import digest, open_regular, write_durably
from unialign.io._json import CHECKSUM, add_checksum, is_unchanged

# Written files have a few kilobytes; the limit prevents memory exhaustion by malicious files.
_MAX_JSON_BYTES = 1 << 24
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def write_json(path: Path, body: Mapping[str, Any]) -> str:
    """Return the sha256 of the file."""
    # Do not sort keys, since the order of the modalities must match the order of the heads.
    text = json.dumps(add_checksum(body, sort_keys=False), indent=2, allow_nan=False) + "\n"
    return write_durably(path, text.encode("ascii"))


def read_json(path: Path, *, sha256: str | None = None) -> dict[str, Any]:
    data = read_regular(path, limit=_MAX_JSON_BYTES)
    if sha256 is not None and digest(data) != sha256:
        raise CheckpointError(f"{path} was altered: its sha256 is {digest(data)}, expected {sha256}")
    try:
        body = json.loads(data.decode("utf-8"))
        if not isinstance(body, dict):
            raise ValueError(f"expected an object, got {type(body).__name__}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); restore the file or save again") from None
    if not is_unchanged(body, sort_keys=False):
        raise CheckpointError(f"{path} was altered after it was written; restore the file or save again")
    del body[CHECKSUM]
    return body


def reject_pickles(folder: Path, expected: str) -> None:
    found = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _PICKLE_SUFFIXES)
    if found:
        raise CheckpointError(
            f"{folder / found[0]} is a pickle, which can run code and is never read; "
            f"use {expected} instead, or convert the file with safetensors in an isolated environment"
        )


def read_regular(path: Path, *, limit: int | None = None) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise CheckpointError(f"{path} has {size} bytes, expected at most {limit}")
            return file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
