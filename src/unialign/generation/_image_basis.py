"""Image representations that decoders generate: principal components for a CPU, pixels for a GPU.

An image of 32 x 32 pixels has 3,072 numbers, but a few hundred directions hold nearly all variance.

Shapes: `N` images, `S` pixels a side, `P` = 3 S S numbers of an image, `L` latents.
"""

import torch
from torch import Tensor, nn

from unialign.errors import DataError

# Exponent of the whitening: 0 keeps the components' variances, and noise masks the small ones at nearly every time;
# 1 equalizes them, and the small ones dominate the loss.
_WHITENING = 0.5


class PCABasis(nn.Module):
    """Principal components of the training images, as buffers; `encode` and `decode` are affine."""

    mean: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, size: int, latents: int) -> None:
        super().__init__()
        self.size, self.shape = size, (latents,)
        self.register_buffer("mean", torch.zeros(3 * size * size))
        self.register_buffer("axes", torch.zeros(3 * size * size, latents))
        self.register_buffer("scale", torch.ones(latents))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Compute mean, axes and scales of (N, 3, S, S) images in [0, 1].

        Raises:
            DataError: the images vary in fewer than L directions.
        """
        flat_NP, latents = images.flatten(1).double(), self.shape[0]
        _, values_K, axes_KP = torch.linalg.svd(flat_NP - flat_NP.mean(0), full_matrices=False)
        rank = int((values_K > 1e-7 * values_K.max().clamp_min(1e-12)).sum())
        if rank < latents:
            raise DataError(
                f"{len(images)} training images vary in {rank} directions, fewer than latents={latents}; set "
                f"latents to at most {max(rank, 1)}, or use more images"
            )
        deviation_L = values_K[:latents] / len(images) ** 0.5
        scale_L = deviation_L**_WHITENING
        # Scale by one common factor, so that latents have the scale of the noise.
        scale_L = scale_L * (deviation_L / scale_L).square().mean().sqrt()
        axes_LP = axes_KP[:latents]
        # Make the largest entry of each axis positive, since a decomposition leaves the signs open.
        sign_L1 = axes_LP.gather(1, axes_LP.abs().argmax(1, keepdim=True)).sign()
        self.mean.copy_(flat_NP.mean(0))
        self.axes.copy_((axes_LP * sign_L1).mT)
        self.scale.copy_(scale_L)

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, L)."""
        latents_NL: Tensor = (images.flatten(1) - self.mean) @ self.axes / self.scale
        return latents_NL

    def decode(self, latents_NL: Tensor) -> Tensor:
        """(N, L) -> (N, 3, S, S), clipped to [0, 1]."""
        flat_NP = (latents_NL * self.scale) @ self.axes.mT + self.mean
        return flat_NP.reshape(-1, 3, self.size, self.size).clamp(0, 1)


class PixelBasis(nn.Module):
    """(image - mean) / deviation with one mean and one deviation over all training pixels, as buffers."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shape = (3, size, size)
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("scale", torch.tensor(0.5))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Compute mean and deviation of (N, 3, S, S) images in [0, 1]."""
        self.mean.fill_(images.double().mean())
        self.scale.fill_(images.double().std(correction=0).clamp_min(1e-3))

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, 3, S, S)."""
        return (images - self.mean) / self.scale

    def decode(self, samples: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, 3, S, S), clipped to [0, 1]."""
        return (samples * self.scale + self.mean).clamp(0, 1)
