"""Read encoders that are stored inside the folder of a space.

The folder `encoders/<start of the fingerprint>` has the files of the encoder, and a sealed `encoder.json` with their
checksums.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.errors import CheckpointError
from unialign.io import digest, open_regular, read_json, reject_links_out

ENCODERS, ENCODER_FILE = "encoders", "encoder.json"
# Formats of the files of an encoder; none of them can run code.
SUFFIXES = (".json", ".safetensors", ".txt", ".onnx")


def inside_name(reference: Mapping[str, Any]) -> str:
    """Return the name of the folder of an encoder; encoders of other features have other names."""
    return str(reference["fingerprint"])[:16]


def read_inside(folder: Path, reference: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of an encoder.

    Raises:
        CheckpointError: a file is missing or altered, or belongs to another encoder.
    """
    for name in (".", ENCODER_FILE):
        reject_links_out(folder / name, folder.parent.parent, error=CheckpointError)
    body = read_json(folder / ENCODER_FILE)
    sums = body.get("files")
    if body.get("fingerprint") != reference["fingerprint"] or not isinstance(sums, dict):
        raise CheckpointError(f"{folder / ENCODER_FILE} belongs to another encoder; restore the files of the space")
    files = {ENCODER_FILE: _read(folder / ENCODER_FILE)}
    for name, expected in sums.items():
        if Path(name).name != name or Path(name).suffix not in SUFFIXES:
            raise CheckpointError(f"{folder / ENCODER_FILE} lists the file {name!r}, which an encoder cannot have")
        reject_links_out(folder / name, folder.parent.parent, error=CheckpointError)
        files[name] = _read(folder / name)
        if digest(files[name]) != expected:
            raise CheckpointError(f"{folder / name} was altered or truncated; restore the file or save the space again")
    return files


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
