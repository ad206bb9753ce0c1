"""Find, read and check the files of a pretrained model in a folder."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unialign.encoders._options import as_spdx
from unialign.errors import ConfigError, DataError
from unialign.io import CHUNK_BYTES, digest, open_regular

__all__ = ["check_files", "copy_files", "file_sha256", "has_file", "license_of", "read_object", "weight_files"]

_MAX_JSON_BYTES = 1 << 26
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin")


def has_file(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a file of at most 64 MiB."""
    path = folder / name
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_JSON_BYTES + 1)
        if len(data) > _MAX_JSON_BYTES:
            raise ValueError(f"it has more than {_MAX_JSON_BYTES} bytes")
        body = json.loads(data.decode("utf-8"))
        if not isinstance(body, dict):
            raise ValueError(f"expected an object, got {type(body).__name__}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; the folder must contain {name}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from None
    return body


def weight_files(folder: Path, *, single: str = _SINGLE, index: str = _INDEX) -> tuple[str, ...]:
    """Return the names of the safetensors files, and of their index. Raise DataError for pickles."""
    if has_file(folder, single):
        return (single,)
    if has_file(folder, index):
        shards = read_object(folder, index).get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, Mapping) else []
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise DataError(f"{folder / index} must map tensors to safetensors files in the same folder")
        return (index, *names)
    pickles = [name for name in _PICKLES if has_file(folder, name)]
    hint = f"; {pickles[0]} is a pickle, which can run code and is never read" if pickles else ""
    raise DataError(f"{folder} has no {single}{hint}; save the model with safetensors")


def check_files(folder: Path, names: Iterable[str], expected: Mapping[str, str] | None) -> dict[str, str]:
    """Return the sha256 of each file, after comparing it with the expected one and checking the safetensors format."""
    found: dict[str, str] = {}
    for name in names:
        if name.endswith(".safetensors"):
            _check_safetensors(folder / name)
        found[name] = file_sha256(folder / name)
        if expected is not None and expected.get(name) != found[name]:
            raise DataError(
                f"{folder / name} is not the file that the reference names: its sha256 is {found[name]}, expected "
                f"{expected.get(name, 'no such file')}; restore the file, or embed the data again"
            )
    return found


def file_sha256(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return digest(iter(partial(file.read, CHUNK_BYTES), b""))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; restore the file") from None


def copy_files(source: Path, folder: Path, names: Sequence[str]) -> dict[str, str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    return {name: file_sha256(folder / name) for name in names}


def license_of(folder: Path) -> str:
    """Return the SPDX identifier in the metadata of a model card, or `unknown`."""
    try:
        with open_regular(folder / "README.md") as file:
            lines = file.read(1 << 16).decode("utf-8", "replace").splitlines()
    except OSError:
        return "unknown"
    if not lines or lines[0].strip() != "---":
        return "unknown"
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        if key.strip() == "license" and value.strip():
            return as_spdx(value.strip().strip("'\""))
    return "unknown"


def reject_remote_code(config: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError if a configuration refers to Python code in its repository."""
    if "auto_map" in config:
        raise ConfigError(
            f"{where} names Python code to run (auto_map), which is never loaded; load the model yourself and pass it "
            f"to unialign.encoders.wrap"
        )


def reject_adapters(folder: Path) -> None:
    """Raise ConfigError if the folder has weights that libraries add to a model without a check of their sha256."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("adapter_config.json"))
    if found:
        raise ConfigError(
            f"{folder / found[0]} adds an adapter to the model, which is not supported; merge the adapter into the "
            "model (merge_and_unload in peft), save it again, and remove the file"
        )


def _check_safetensors(path: Path) -> None:
    try:
        with open_regular(path) as file:
            start = file.read(9)
            file.seek(0, 2)
            size = file.tell()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; restore the file") from None
    # A safetensors file begins with the 8-byte little-endian length of its JSON header.
    if len(start) < 9 or start[8:9] != b"{" or int.from_bytes(start[:8], "little") > size - 8:
        kind = (
            "a pickle or an archive, which can run code and is never read"
            if start[:1] in (b"\x80", b"P")
            else "damaged"
        )
        raise DataError(f"{path} is not a safetensors file; it is {kind}")
