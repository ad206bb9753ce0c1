"""The protocol of decoders, which generate images from embeddings of an image encoder, and validation of their input.

The idea is unCLIP's (Ramesh et al. 2022, section 2.1).

Shapes: `N` images, `W` width of the embeddings, `S` pixels a side.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_number, check_text
from unialign.batch import as_dense, first_bad_row
from unialign.errors import NonFiniteError, ShapeError

__all__ = ["Decoder", "EmbeddingSpec", "check_embeddings", "check_generated", "check_sampling", "noise_rows"]

# Published guidance weights are below 20; far above, samples overflow.
_MAX_GUIDANCE = 1000.0


@dataclass(frozen=True)
class EmbeddingSpec:
    """The raw image embeddings that a decoder accepts.

    Attributes:
        encoder: description of the image encoder.
        width: W.
        identity: sha256 of the encoder. A space whose anchor has another one is rejected; None if unknown, and then
            only widths are compared.
        norm: typical norm of an embedding, None if unknown.
        scale_invariant: whether only the direction of an embedding from the mean changes the image, not its norm.
    """

    encoder: str
    width: int
    identity: str | None = None
    norm: float | None = None
    scale_invariant: bool = False

    def __post_init__(self) -> None:
        check_text("encoder", self.encoder)
        check_integer("width", self.width, low=1, high=2**24)
        if self.identity is not None:
            check_text("identity", self.identity)
        if self.norm is not None:
            check_number("norm", self.norm, "a finite number of at least 0", lambda x: 0 <= x < float("inf"))
        check_choice("scale_invariant", self.scale_invariant, (True, False))

    def provenance(self) -> dict[str, Any]:
        """Provenance of a store's column of such embeddings, by which spaces and decoders recognize each other.

        `EmbeddingStore.write(..., provenance={"columns": {"image": decoder.input_spec.provenance()}})`
        """
        return {"encoder": self.encoder, "identity": self.identity}


@runtime_checkable
class Decoder(Protocol):
    """A generator of images conditioned on image embeddings."""

    @property
    def input_spec(self) -> EmbeddingSpec:
        """The embeddings that it decodes."""

    @property
    def size(self) -> int:
        """S, pixels a side."""

    def generate(
        self, embeddings: Any, *, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> Tensor:
        """Generate one image for each embedding.

        Args:
            embeddings: (N, W) real numbers, tensor or array.
            seed: of the noise; the noise of row i depends on the seed and i only.
            steps: of the sampler; None is the decoder's default.
            guidance: weight of classifier-free guidance, 1 is off; None is the decoder's default.

        Returns:
            (N, 3, S, S) float32 in [0, 1] on the CPU.

        Raises:
            ShapeError: not (N, W).
            NonFiniteError: a row holds NaN or infinity, or only zeros.
            ConfigError: an option is out of range.
        """
        ...


def check_embeddings(embeddings: Any, spec: EmbeddingSpec) -> Tensor:
    """Validate the input of `generate` and return it as (N, W) float32 on the CPU; errors as in `Decoder.generate`."""
    x_NW = as_dense(embeddings, "embeddings", f"(N, {spec.width})")
    if x_NW.ndim != 2 or x_NW.shape[1] != spec.width:
        raise ShapeError(
            f"embeddings have shape {tuple(x_NW.shape)}; this decoder expects (N, {spec.width}), embeddings of "
            f"{spec.encoder}"
        )
    if x_NW.is_complex() or x_NW.dtype == torch.bool:
        raise ShapeError(f"embeddings have dtype {x_NW.dtype}; expected real numbers")
    x_NW = x_NW.detach().float().cpu()
    bad = first_bad_row(x_NW, ~torch.isfinite(x_NW).all(1) | ~x_NW.any(1))
    if bad is not None:
        raise NonFiniteError(
            f"embeddings, row {bad.row}, {bad.what}{bad.more}; expected finite numbers that are not all 0"
        )
    return x_NW


def check_sampling(seed: int, steps: int, guidance: float) -> None:
    """Raise ConfigError unless the options of `generate` are valid."""
    check_integer("seed", seed, low=0)
    check_integer("steps", steps, low=1)
    check_number("guidance", guidance, f"a number from 0 to {_MAX_GUIDANCE:g}", lambda x: 0 <= x <= _MAX_GUIDANCE)


def check_generated(images: Tensor) -> Tensor:
    """Return generated images, or raise NonFiniteError if weights or options made one overflow."""
    bad = (~torch.isfinite(images).flatten(1).all(1)).nonzero()
    if len(bad):
        raise NonFiniteError(
            f"image {int(bad[0])} is not finite; use a smaller guidance, or embeddings of usual norm; if that does not "
            f"help, the decoder is damaged or its training diverged"
        )
    return images


def noise_rows(rows: int, width: int, *, seed: int, first: int = 0) -> Tensor:
    """(rows, width) normal numbers; row i depends on the seed and on `first + i` only, whatever the batch is."""
    out = torch.empty(rows, width, dtype=torch.float32)
    for i in range(rows):
        state = np.random.SeedSequence([seed, first + i]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) & (2**63 - 1))
        out[i] = torch.randn(width, generator=generator, dtype=torch.float32)
    return out
