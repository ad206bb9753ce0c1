"""The class of the encoders of this package.

Shapes: `n` items of a batch, `D` length of the features.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign.encoders._encoder import Prepare, Prepared
from unialign.encoders._lora import ADAPTER_FILE, has_effect, write_adapter
from unialign.encoders._reference import fingerprint_of
from unialign.encoders._witness import rounded, witness
from unialign.errors import ConfigError
from unialign.media import Decoding, Kind

Batch = dict[str, Tensor]


class BuiltEncoder:
    """See `unialign.encoders.Encoder` for the attributes."""

    media: Kind
    dim: int

    def __init__(
        self,
        reference: Mapping[str, Any],
        *,
        decoding: Decoding,
        prepare: Prepare,
        forward: Callable[[Batch], Tensor],
        module: nn.Module | None = None,
        collate: Callable[[Sequence[Prepared]], Batch] | None = None,
        device: torch.device | None = None,
        example: Any = None,
        write: Callable[[Path], Mapping[str, Any]] | None = None,
    ) -> None:
        self.media, self.dim = reference["media"], reference["dim"]
        self.decoding, self.prepare, self.module = decoding, prepare, module
        # The input of the witness, if the kind of media does not determine one.
        self.example = example
        # Writes the files of the encoder into a folder and returns the entries of the reference that describe them.
        self._write = write
        self._reference = dict(reference)
        self._forward, self._device = forward, device
        self._collate = stack if collate is None else collate
        # Keeps the files of a copy alive as long as the copy.
        self.files: Any = None

    @property
    def fingerprint(self) -> str:
        return str(self._reference["fingerprint"])

    @property
    def reference(self) -> dict[str, Any]:
        if "witness" not in self._reference:
            self._reference["witness"] = rounded(witness(self))
        return dict(self._reference)

    def collate(self, prepared: Sequence[Prepared]) -> Batch:
        return self._collate(prepared)

    def encode(self, batch: Batch) -> Tensor:
        # A caller may have moved the module.
        device = self._device or torch.device("cpu") if self.module is None else device_of(self.module)
        return self._forward({name: value.to(device) for name, value in batch.items()}).float()

    def with_reference(self, reference: Mapping[str, Any]) -> "BuiltEncoder":
        """Return an encoder of the same module with a reference to its present weights."""
        other = copy.copy(self)
        other._reference = dict(reference)
        return other

    def write_files(self, folder: Path) -> Mapping[str, Any]:
        """Write the files of the encoder without an adapter, and return the entries that describe them."""
        if self._write is None:
            raise ConfigError(
                f"the encoder {self._reference['kind']}:{self._reference['name']} has no files to save; save its "
                f"reference"
            )
        return self._write(folder)

    def save_files(self, folder: Path) -> dict[str, Any]:
        body = {**self._own_entries(), **self.write_files(folder), "stored": "inside"}
        if self.module is not None and has_effect(self.module):
            body["adapter"] = write_adapter(self.module, folder)
            body["files"] = {**body["files"], ADAPTER_FILE: body["adapter"]["sha256"]}
        return self._sealed(body)

    def save_adapter(self, folder: Path) -> dict[str, Any]:
        """Write only the adapter of the module; the base weights must be those of the reference."""
        assert self.module is not None
        entry = write_adapter(self.module, folder)
        files = {ADAPTER_FILE: entry["sha256"]}
        return self._sealed({**self._own_entries(), "adapter": entry, "files": files, "stored": "adapter"})

    def _own_entries(self) -> dict[str, Any]:
        others = ("witness", "fingerprint", "adapter", "files")
        return {key: value for key, value in self._reference.items() if key not in others}

    def _sealed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "fingerprint": fingerprint_of(body), "witness": rounded(witness(self))}

    def __repr__(self) -> str:
        name = f"{self._reference['kind']}:{self._reference['name']}"
        return f"<encoder {name}, {self.media}, dim {self.dim}, {self.fingerprint[:12]}>"


def not_half(values: Tensor) -> Tensor:
    """Convert half precision to float32."""
    return values if values.dtype == torch.float64 else values.float()


def device_of(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def stack(prepared: Sequence[Prepared]) -> Batch:
    return {name: torch.from_numpy(np.stack([item[name] for item in prepared])) for name in prepared[0]}


def pad(prepared: Sequence[Prepared]) -> Batch:
    """Pad with zeros along the first axis; `length` contains the original lengths."""
    longest = {name: max(len(item[name]) for item in prepared) for name in prepared[0]}
    batch: Batch = {"length": torch.tensor([len(next(iter(item.values()))) for item in prepared])}
    for name, length in longest.items():
        first = prepared[0][name]
        padded = np.zeros((len(prepared), length, *first.shape[1:]), first.dtype)
        for row, item in enumerate(prepared):
            padded[row, : len(item[name])] = item[name]
        batch[name] = torch.from_numpy(padded)
    return batch
