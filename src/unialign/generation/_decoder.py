"""What a decoder is: images from embeddings of its image encoder, as unCLIP has it (Ramesh et al. 2022, section 2.1).

Shapes: `N` images, `W` width of the embeddings, `S` pixels a side.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_number, check_text
from unialign.batch import as_dense, first_bad_row
from unialign.errors import NonFiniteError, ShapeError

__all__ = ["Decoder", "EmbeddingSpec", "check_embeddings", "check_made", "check_sampling", "noise_rows"]

Lengths = Literal["read", "ignored"]


@dataclass(frozen=True)
class EmbeddingSpec:
    """The embeddings that a decoder reads: raw ones, as its image encoder gives them.

    Attributes:
        encoder: what made them, in words.
        width: W.
        identity: sha256 of what made them; a space whose anchor has another one is refused. None: unknown, and only the
            width can be compared.
        norm: typical length of an embedding, None if unknown.
        lengths: whether the length of an embedding changes the image (`read`), or its direction from the mean only
            (`ignored`).
    """

    encoder: str
    width: int
    identity: str | None = None
    norm: float | None = None
    lengths: Lengths = "read"

    def __post_init__(self) -> None:
        check_text("encoder", self.encoder)
        check_integer("width", self.width, low=1, high=2**24)
        if self.identity is not None:
            check_text("identity", self.identity)
        if self.norm is not None:
            check_number("norm", self.norm, "a finite number of at least 0", lambda x: 0 <= x < float("inf"))
        check_choice("lengths", self.lengths, get_args(Lengths))

    def provenance(self) -> dict[str, Any]:
        """What a store says of a column of such embeddings, so that spaces and decoders of it know each other.

        `EmbeddingStore.write(..., provenance={"columns": {"image": decoder.input_spec.provenance()}})`
        """
        return {"encoder": self.encoder, "identity": self.identity}


# Published ones are below 20; far above, samples leave the numbers that images have.
_MOST_GUIDANCE = 1000.0


@runtime_checkable
class Decoder(Protocol):
    """A generator of images that is conditioned on image embeddings."""

    @property
    def input_spec(self) -> EmbeddingSpec:
        """The embeddings it reads."""

    @property
    def size(self) -> int:
        """S, pixels a side."""

    def generate(
        self, embeddings: Any, *, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> Tensor:
        """Images of embeddings.

        Args:
            embeddings: (N, W) real numbers, tensor or array.
            seed: decides the noise. Row i gets the same noise whatever else is asked for with it.
            steps: of the sampler; None is the decoder's own number.
            guidance: weight of classifier-free guidance, 1 for none; None is the decoder's own number.

        Returns:
            (N, 3, S, S) float32 in [0, 1] on the CPU.

        Raises:
            ShapeError: not (N, W).
            NonFiniteError: a row holds NaN or infinity, or only zeros.
            ConfigError: an option is out of range.
        """
        ...


def check_embeddings(embeddings: Any, spec: EmbeddingSpec) -> Tensor:
    """The border of every `generate`: (N, W) float32 on the CPU; errors as in `Decoder.generate`."""
    x_NW = as_dense(embeddings, "embeddings", f"(N, {spec.width})")
    if x_NW.ndim != 2 or x_NW.shape[1] != spec.width:
        raise ShapeError(
            f"embeddings have shape {tuple(x_NW.shape)}; this decoder reads (N, {spec.width}), embeddings of "
            f"{spec.encoder}"
        )
    if x_NW.is_complex() or x_NW.dtype == torch.bool:
        raise ShapeError(f"embeddings have dtype {x_NW.dtype}; expected real numbers")
    x_NW = x_NW.detach().float().cpu()
    bad = first_bad_row(x_NW, ~torch.isfinite(x_NW).all(1) | ~x_NW.any(1))
    if bad is not None:
        raise NonFiniteError(
            f"embeddings, row {bad.row}, {bad.what}{bad.more}; an image is made of finite numbers that are not all 0"
        )
    return x_NW


def check_sampling(seed: int, steps: int, guidance: float) -> None:
    """`ConfigError` unless the options of `generate` make sense."""
    check_integer("seed", seed, low=0)
    check_integer("steps", steps, low=1)
    check_number("guidance", guidance, f"a number from 0 to {_MOST_GUIDANCE:g}", lambda x: 0 <= x <= _MOST_GUIDANCE)


def check_made(images: Tensor) -> Tensor:
    """The images of a decoder, or `NonFiniteError`: its weights or its options have led it out of all numbers."""
    bad = (~torch.isfinite(images).flatten(1).all(1)).nonzero()
    if len(bad):
        raise NonFiniteError(
            f"image {int(bad[0])} is not finite; take a smaller guidance, or embeddings of usual lengths, and if it "
            f"stays so, the decoder is damaged or diverged in training"
        )
    return images


def noise_rows(rows: int, width: int, *, seed: int, first: int = 0) -> Tensor:
    """(rows, width) normal numbers; row i depends on the seed and on `first + i` alone.

    So that images of equal seed can be compared one by one, whatever was asked for together.
    """
    out = torch.empty(rows, width, dtype=torch.float32)
    for i in range(rows):
        state = np.random.SeedSequence([seed, first + i]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) & (2**63 - 1))
        out[i] = torch.randn(width, generator=generator, dtype=torch.float32)
    return out
