"""The class of the encoders that this package builds.

Shapes: `n` items of a batch, `D` length of the features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign.encoders._encoder import Prepare, Prepared
from unialign.encoders._witness import rounded, witness
from unialign.media import Decoding, Kind

Batch = dict[str, Tensor]


class BuiltEncoder:
    """An encoder; see `unialign.encoders.Encoder` for the attributes."""

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
        example: Any = None,
        save: "Callable[[Any], Mapping[str, Any]] | None" = None,
    ) -> None:
        self.media, self.dim = reference["media"], reference["dim"]
        self.decoding, self.prepare, self.module = decoding, prepare, module
        # The input of the witness, if the kind of media does not determine one.
        self.example = example
        # Writes the files of the encoder into a folder and returns changed entries of the reference.
        self.save = save
        self._reference = dict(reference)
        self._forward = forward
        self._collate = stack if collate is None else collate

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
        device = device_of(self.module)
        return self._forward({name: value.to(device) for name, value in batch.items()}).float()

    def __repr__(self) -> str:
        name = f"{self._reference['kind']}:{self._reference['name']}"
        return f"<encoder {name}, {self.media}, dim {self.dim}, {self.fingerprint[:12]}>"


def device_of(module: nn.Module | None) -> torch.device:
    first = None if module is None else next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def stack(prepared: Sequence[Prepared]) -> Batch:
    """Stack arrays of equal shapes."""
    return {name: torch.from_numpy(np.stack([item[name] for item in prepared])) for name in prepared[0]}


def pad(prepared: Sequence[Prepared]) -> Batch:
    """Stack arrays along a first axis of different lengths, with zeros at the end."""
    longest = {name: max(len(item[name]) for item in prepared) for name in prepared[0]}
    batch: Batch = {}
    for name, length in longest.items():
        first = prepared[0][name]
        padded = np.zeros((len(prepared), length, *first.shape[1:]), first.dtype)
        for row, item in enumerate(prepared):
            padded[row, : len(item[name])] = item[name]
        batch[name] = torch.from_numpy(padded)
    return batch
