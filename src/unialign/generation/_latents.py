"""Images as a few hundred numbers: principal components of the training images.

A decoder that trains on a CPU has to be cheap per step, and an image of 32 x 32 has 3,072 numbers of which a few
hundred directions hold nearly everything.

Shapes: `N` images, `S` pixels a side, `P` = 3 S S numbers of an image, `L` latents.
"""

import torch
from torch import Tensor, nn

from unialign.errors import DataError

__all__ = ["ImageBasis"]

# Between 0, which leaves the variances of the components as they are, and 1, which makes them all alike: the first lets
# noise drown the small ones at nearly every time, the second lets them decide the loss.
_WHITENING = 0.5


class ImageBasis(nn.Module):
    """Mean, axes and scales of training images, as buffers; `encode` and `decode` are affine.

    Args:
        size: S.
        latents: L.
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, size: int, latents: int) -> None:
        super().__init__()
        self.size, self.latents = size, latents
        self.register_buffer("mean", torch.zeros(3 * size * size))
        self.register_buffer("axes", torch.zeros(3 * size * size, latents))
        self.register_buffer("scale", torch.ones(latents))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (self.latents,)

    @property
    def numbers(self) -> int:
        """Of one sample."""
        return self.latents

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mean, axes and scales of (N, 3, S, S) images in [0, 1].

        Raises:
            DataError: fewer than L directions vary in them.
        """
        flat_NP = images.flatten(1).double()
        centred_NP = flat_NP - flat_NP.mean(0)
        _, values_K, axes_KP = torch.linalg.svd(centred_NP, full_matrices=False)
        rank = int((values_K > 1e-7 * values_K.max().clamp_min(1e-12)).sum())
        if rank < self.latents:
            raise DataError(
                f"{len(images)} training images vary in {rank} directions, fewer than latents={self.latents}; set "
                f"latents to at most {max(rank, 1)}, or use more images"
            )
        deviation_L = values_K[: self.latents] / len(images) ** 0.5
        scale_L = deviation_L**_WHITENING
        # One number more, so that a latent has the size of the noise it is mixed with.
        scale_L = scale_L * (deviation_L / scale_L).square().mean().sqrt()
        axes_LP = axes_KP[: self.latents]
        largest_L = axes_LP.abs().argmax(1)
        sign_L = axes_LP[torch.arange(self.latents), largest_L].sign()
        self.mean.copy_(flat_NP.mean(0))
        self.axes.copy_((axes_LP * sign_L[:, None]).mT)
        self.scale.copy_(scale_L)

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, L)."""
        latents_NL: Tensor = (images.flatten(1) - self.mean) @ self.axes / self.scale
        return latents_NL

    def decode(self, latents_NL: Tensor) -> Tensor:
        """(N, L) -> (N, 3, S, S), clipped to [0, 1]."""
        flat_NP = (latents_NL * self.scale) @ self.axes.mT + self.mean
        return flat_NP.reshape(-1, 3, self.size, self.size).clamp(0, 1)
