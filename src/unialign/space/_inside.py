"""Read encoders and adapters that are stored inside the folder of a space, in `encoders/<start of the fingerprint>`."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from unialign.errors import CheckpointError
from unialign.io import digest, is_leftover, open_regular, reject_links_out

ENCODERS = "encoders"
# Formats of the files of an encoder; none of them can run code.
SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".onnx")
# Names of the folders of encoders.
FOLDER = re.compile("[0-9a-f]{16}")


def has_files(reference: Mapping[str, Any]) -> bool:
    """Return whether the encoder, or its adapter, is in a folder of the space."""
    return reference.get("stored") in ("inside", "adapter")


def inside_name(reference: Mapping[str, Any]) -> str:
    """Return the name of the folder of an encoder; encoders with different features have different names."""
    return str(reference["fingerprint"])[:16]


def read_inside(folder: Path, reference: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of an encoder.

    Raises:
        CheckpointError: the reference does not list the files, a file is missing or altered, or the folder has other
            files.
    """
    sums = reference.get("files", {})
    if not FOLDER.fullmatch(folder.name):
        raise CheckpointError(f"{folder} cannot be the folder of an encoder; save the space again")
    files = {}
    for name, expected in sums.items():
        parts = PurePosixPath(name).parts
        if str(PurePosixPath(*parts)) != name or parts[0] == "/" or ".." in parts or Path(name).suffix not in SUFFIXES:
            raise CheckpointError(f"an encoder cannot have the file {name!r}; expected {', '.join(SUFFIXES)}")
        path = folder / name
        reject_links_out(path, folder.parent.parent, error=CheckpointError)
        try:
            with open_regular(path) as file:
                files[name] = file.read()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
        if digest(files[name]) != expected:
            raise CheckpointError(f"{path} was altered or truncated; restore the file or save the space again")
    _reject_others(folder, sums)
    return files


def _reject_others(folder: Path, names: Collection[str]) -> None:
    """Raise CheckpointError for files that the reference does not list, such as adapters, since libraries also read
    them.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in names and (path.is_symlink() or not path.is_dir()) and not is_leftover(path):
            raise CheckpointError(f"{path} is not a file of the encoder; remove it, or save the space again")
