"""The interface of encoders."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

from unialign.media import Decoding, Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Encoder", "Prepare", "Prepared", "Reference"]

# Arrays of one item: the input of `Encoder.collate`.
Prepared: TypeAlias = dict[str, NDArray[Any]]
Prepare: TypeAlias = Callable[[Any], Prepared]
# JSON object from which `load` rebuilds an encoder.
Reference: TypeAlias = Mapping[str, Any]


@runtime_checkable
class Encoder(Protocol):
    """Map decoded media of one kind to feature vectors.

    Attributes:
        media: kind of media.
        dim: length D of the features.
        decoding: options for the decoder.
        prepare: picklable function of one decoded media value that returns NumPy arrays. Equal inputs give equal
            outputs. It runs in worker processes, so unpickling it should not import torch.
        module: trainable part, or None if the encoder cannot be trained.
    """

    media: Kind
    dim: int
    decoding: Decoding
    prepare: Prepare
    module: "nn.Module | None"

    @property
    def fingerprint(self) -> str:
        """The sha256 of the facts that determine the features; equal fingerprints mean comparable features."""

    @property
    def reference(self) -> dict[str, Any]:
        """A JSON object from which `load` rebuilds the encoder; it contains the fingerprint."""

    def collate(self, prepared: Sequence[Prepared]) -> "dict[str, Tensor]":
        """Convert the prepared arrays of n items to a batch of tensors on the CPU."""
        ...

    def encode(self, batch: "dict[str, Tensor]") -> "Tensor":
        """Compute the features of a batch.

        Returns:
            Features of shape (n, D), float32, on the device of the module; pooled, not normalized, and differentiable
            if `module` is not None.
        """
        ...
