"""Protocol of decoders of image embeddings (unCLIP, Ramesh et al. 2022, section 2.1).

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

# Published guidance weights are below 20; much larger weights make samples overflow.
_MAX_GUIDANCE = 1000.0


@dataclass(frozen=True)
class EmbeddingSpec:
    """Specification of the raw image embeddings that a decoder accepts.

    Attributes:
        encoder: description of the image encoder.
        dim: dimension W of the embeddings.
        fingerprint: SHA-256 of the encoder; a space is rejected if the fingerprint of its anchor differs. None if
            unknown; then only dims are compared.
        norm: typical norm of an embedding; None if unknown.
        scale_invariant: whether the image depends only on the direction of the centered embedding, not on its norm.
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
        """Return the column provenance that a store of these embeddings needs to match this decoder.

        `EmbeddingStore.write(..., provenance={"columns": {"image": decoder.input_spec.provenance()}})`
        """
        return {"encoder": self.encoder, "fingerprint": self.fingerprint}


@runtime_checkable
class Decoder(Protocol):
    """Interface of decoders, which generate images from image embeddings."""

    @property
    def input_spec(self) -> EmbeddingSpec:
        """Specification of the embeddings that the decoder accepts."""

    @property
    def size(self) -> int:
        """Side length S of the images in pixels."""

    def generate(
        self, embeddings: Any, *, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> Tensor:
        """Generate one image for each embedding.

        Args:
            embeddings: tensor or array of real numbers, of shape (N, W).
            seed: seed of the noise; the noise of row i depends only on the seed and i.
            steps: number of sampler steps; None: the decoder's default.
            guidance: weight of classifier-free guidance; 1 disables it. None: the decoder's default.

        Returns:
            Images of shape (N, 3, S, S), float32 in [0, 1] on the CPU.

        Raises:
            ShapeError: `embeddings` is not of shape (N, W).
            NonFiniteError: a row contains NaN or infinity, or only zeros.
            ConfigError: an option is out of range.
        """
        ...


def check_embeddings(embeddings: Any, spec: EmbeddingSpec) -> Tensor:
    x_NW = as_dense(embeddings, "embeddings", f"(N, {spec.dim})")
    if x_NW.ndim != 2 or x_NW.shape[1] != spec.dim or x_NW.is_complex() or x_NW.dtype == torch.bool:
        raise ShapeError(
            f"embeddings have shape {tuple(x_NW.shape)} and dtype {x_NW.dtype}; this decoder expects real numbers of "
            f"shape (N, {spec.dim}), embeddings of {spec.encoder}"
        )
    x_NW = x_NW.detach().float().cpu()
    if bad := first_bad_row(x_NW, ~torch.isfinite(x_NW).all(1) | ~x_NW.any(1)):
        raise NonFiniteError(
            f"embeddings, row {bad.row}, {bad.what}{bad.more}; expected finite numbers that are not all 0"
        )
    return x_NW


def check_sampling(seed: int, steps: int, guidance: float) -> None:
    check_integer("seed", seed, low=0)
    check_integer("steps", steps, low=1)
    check_number("guidance", guidance, f"a number from 0 to {_MAX_GUIDANCE:g}", lambda x: 0 <= x <= _MAX_GUIDANCE)


def check_generated(images: Tensor) -> Tensor:
    if len(bad := (~torch.isfinite(images).flatten(1).all(1)).nonzero()):
        raise NonFiniteError(
            f"image {int(bad[0])} is not finite; use a smaller guidance weight or embeddings of typical norm. If that "
            f"does not help, the decoder is damaged or its training has diverged"
        )
    return images


def draw_noise(rows: int, dim: int, *, seed: int, first: int = 0) -> Tensor:
    """Draw noise; row i depends only on `seed` and `first + i`."""
    out = torch.empty(rows, dim, dtype=torch.float32)
    for i in range(rows):
        out[i] = torch.randn(dim, generator=make_row_generator(seed, first + i), dtype=torch.float32)
    return out


def make_row_generator(seed: int, row: int, *, stream: int | None = None) -> torch.Generator:
    """Return a generator for a row; different streams are independent."""
    spawn_key = () if stream is None else (stream,)
    state = np.random.SeedSequence([seed, row], spawn_key=spawn_key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
