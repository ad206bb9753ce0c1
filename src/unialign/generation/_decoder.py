"""Protocol of decoders, which generate images from image embeddings as in unCLIP, and validation of their input.

unCLIP: Ramesh et al. 2022, section 2.1.

Shapes: `N` images, `W` dimension of the embeddings, `S` x `S` pixels of an image.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_number, check_text
from unialign._invalid_rows import first_bad_row
from unialign.batch import as_dense
from unialign.errors import NonFiniteError, ShapeError

# Published guidance weights are below 20; far larger ones make samples overflow.
_MAX_GUIDANCE = 1000.0


@dataclass(frozen=True)
class EmbeddingSpec:
    """The raw image embeddings that a decoder accepts.

    Attributes:
        encoder: description of the image encoder.
        dim: W.
        fingerprint: sha256 of the encoder; spaces whose anchor has a different one are rejected. None if unknown: only
            dims are compared.
        norm: typical norm of an embedding, None if unknown.
        scale_invariant: whether the image depends only on the direction of an embedding from the mean, not its norm.
    """

    encoder: str
    dim: int
    fingerprint: str | None = None
    norm: float | None = None
    scale_invariant: bool = False

    def __post_init__(self) -> None:
        check_text("encoder", self.encoder)
        check_integer("dim", self.dim, low=1, high=2**24)
        if self.fingerprint is not None:
            check_text("fingerprint", self.fingerprint)
        if self.norm is not None:
            check_number("norm", self.norm, "a finite number of at least 0", lambda x: 0 <= x < float("inf"))
        check_choice("scale_invariant", self.scale_invariant, (True, False))

    def provenance(self) -> dict[str, Any]:
        """Return the provenance that a store column of these embeddings must have to match this decoder.

        `EmbeddingStore.write(..., provenance={"columns": {"image": decoder.input_spec.provenance()}})`
        """
        return {"encoder": self.encoder, "fingerprint": self.fingerprint}


@runtime_checkable
class Decoder(Protocol):
    """A generator of images conditioned on image embeddings."""

    @property
    def input_spec(self) -> EmbeddingSpec:
        """Embeddings that the decoder accepts."""

    @property
    def size(self) -> int:
        """Side length S of the images in pixels."""

    def generate(
        self, embeddings: Any, *, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> Tensor:
        """Generate one image for each embedding.

        Args:
            embeddings: (N, W) real numbers, tensor or array.
            seed: seed of the noise; the noise of row i depends only on the seed and i.
            steps: number of sampler steps; None is the decoder's default.
            guidance: weight of classifier-free guidance; 1 turns it off, None is the decoder's default.

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
    x_NW = as_dense(embeddings, "embeddings", f"(N, {spec.dim})")
    if x_NW.ndim != 2 or x_NW.shape[1] != spec.dim or x_NW.is_complex() or x_NW.dtype == torch.bool:
        raise ShapeError(
            f"embeddings have shape {tuple(x_NW.shape)} and dtype {x_NW.dtype}; this decoder expects (N, {spec.dim}), "
            f"embeddings of {spec.encoder}"
        )
    x_NW = x_NW.detach().float().cpu()
    if bad := first_bad_row(x_NW, ~torch.isfinite(x_NW).all(1) | ~x_NW.any(1)):
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
    if len(bad := (~torch.isfinite(images).flatten(1).all(1)).nonzero()):
        raise NonFiniteError(
            f"image {int(bad[0])} is not finite; use a smaller guidance, or embeddings of usual norm; if that does not "
            f"help, the decoder is damaged or its training diverged"
        )
    return images


def draw_noise(rows: int, dim: int, *, seed: int, first: int = 0) -> Tensor:
    """Draw (rows, dim) normal numbers; row i depends only on the seed and `first + i`, not on the batch."""
    out = torch.empty(rows, dim, dtype=torch.float32)
    for i in range(rows):
        out[i] = torch.randn(dim, generator=make_row_generator(seed, first + i), dtype=torch.float32)
    return out


def make_row_generator(seed: int, row: int, *, stream: int | None = None) -> torch.Generator:
    """Return a generator that depends on seed, row and stream; streams are independent."""
    spawn_key = () if stream is None else (stream,)
    state = np.random.SeedSequence([seed, row], spawn_key=spawn_key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
