"""Compute the checksum of the tensors of a module, and read and write them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from unialign.encoders._lora import plain_state
from unialign.errors import CheckpointError, DataError
from unialign.io import read_tensors, write_tensors

__all__ = ["check_weights", "read_state", "state_digest", "write_state"]

MODEL_FILE = "model.safetensors"


def state_digest(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers except an adapter, independent of their order and device."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(plain_state(module).items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        plain = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        hasher.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return hasher.hexdigest()


def check_weights(found: Mapping[str, str], expected: Mapping[str, str] | None, where: str) -> None:
    """Raise DataError if weights differ from the expected ones; without expected values, do nothing."""
    for name, sha256 in found.items():
        if expected is not None and expected.get(name) != sha256:
            raise DataError(
                f"{where} has different weights than its reference: the sha256 of {name!r} is {sha256}, expected "
                f"{expected.get(name)}; restore the weights, or embed the data again"
            )


def read_state(module: nn.Module, folder: Path, expected: Mapping[str, str] | None) -> None:
    path = folder / MODEL_FILE
    sha256 = (expected or {}).get(MODEL_FILE)
    if sha256 is None:
        raise DataError(f"the reference to the encoder in {folder} has no sha256 of {MODEL_FILE}; save it again")
    try:
        tensors = read_tensors(path, sha256=sha256)
    except CheckpointError as error:
        raise DataError(str(error)) from None
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit the encoder: {' '.join(str(error).split())}") from None


def write_state(module: nn.Module, folder: Path) -> dict[str, dict[str, str]]:
    """Return the entries of a reference that describe the tensors."""
    sha256 = write_tensors(folder / MODEL_FILE, plain_state(module))
    return {"weights": {"state": state_digest(module)}, "files": {MODEL_FILE: sha256}}
