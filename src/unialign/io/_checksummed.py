"""Read and write checksummed JSON and safetensors files; nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from unialign.errors import CheckpointError
from unialign.io._files import digest, write_durably
from unialign.io._json_files import read_regular


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    # Make contiguous copies, since safetensors rejects tensors that share memory.
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return write_durably(path, safetensors.torch.save(plain))


def read_tensors(path: Path, *, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file and verify its checksum; exactly the verified bytes are parsed."""
    data = read_regular(path)
    _reject_other_formats(path, data)
    if digest(data) != sha256:
        raise CheckpointError(
            f"{path} was altered or truncated: its sha256 is {digest(data)}, expected {sha256}; "
            f"restore the file or save again"
        )
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # malicious input may raise any exception in the parser
        raise CheckpointError(f"{path} is not a safetensors file ({type(error).__name__}: {error})") from None


def _reject_other_formats(path: Path, data: bytes) -> None:
    # A safetensors file begins with the 8-byte little-endian length of the JSON header, then `{`.
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and data[8:9] != b"{":
        raise CheckpointError(f"{path} is a pickle with another suffix; pickles can run code and are never read")
    if data[:4] == b"PK\x03\x04":
        raise CheckpointError(
            f"{path} is a zip archive (as written by `torch.save`), not a safetensors file, and is never read"
        )
    header = int.from_bytes(data[:8], "little")
    if len(data) < 9 or header > len(data) - 8 or data[8:9] != b"{":
        raise CheckpointError(f"{path} is not a safetensors file, or it is truncated ({len(data)} bytes)")
