"""Image representations for decoders: principal components on a CPU, pixels on a GPU.

An image of 32 x 32 pixels has 3,072 values, but a few hundred principal components explain nearly all of the variance.

Shapes: `N` images, `S` x `S` pixels of an image, `P` = 3 S S values of an image, `L` latents.
"""

import torch
from torch import Tensor, nn

from unialign.errors import DataError

# Exponent of the whitening. With 0, components keep their variances, and noise masks components of small variance at
# nearly all times. With 1, all variances are equal, and components of originally small variance dominate the loss.
_WHITENING = 0.5


def principal_axes(x_NP: Tensor, count: int, *, option: str, what: str = "images") -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (P,), singular values (L,) and principal axes (L, P)."""
    mean_P = x_NP.mean(0)
    _, values_K, axes_KP = torch.linalg.svd(x_NP - mean_P, full_matrices=False)
    rank = int((values_K > 1e-7 * values_K.max().clamp_min(1e-12)).sum())
    if rank < count:
        raise DataError(
            f"{len(x_NP)} training {what} vary in {rank} directions, fewer than {option}={count}; set {option} to at "
            f"most {max(rank, 1)}, or use more images"
        )
    return mean_P, values_K[:count], axes_KP[:count]


class PCABasis(nn.Module):
    """`encode` and the unclipped `decode` are affine."""

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
        mean_P, values_L, axes_LP = principal_axes(images.flatten(1).double(), self.shape[0], option="latents")
        deviation_L = values_L / len(images) ** 0.5
        scale_L = deviation_L**_WHITENING
        # Apply a common factor, so that the latents have the scale of the noise.
        scale_L = scale_L * (deviation_L / scale_L).square().mean().sqrt()
        # Make the largest entry of each axis positive, since the SVD does not determine signs.
        sign_L1 = axes_LP.gather(1, axes_LP.abs().argmax(1, keepdim=True)).sign()
        self.mean.copy_(mean_P)
        self.axes.copy_((axes_LP * sign_L1).mT)
        self.scale.copy_(scale_L)

    def encode(self, images: Tensor) -> Tensor:
        latents_NL: Tensor = (images.flatten(1) - self.mean) @ self.axes / self.scale
        return latents_NL

    def decode(self, latents_NL: Tensor) -> Tensor:
        """Clip images to [0, 1]."""
        flat_NP = (latents_NL * self.scale) @ self.axes.mT + self.mean
        return flat_NP.reshape(-1, 3, self.size, self.size).clamp(0, 1)


class PixelBasis(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shape = (3, size, size)
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("scale", torch.tensor(0.5))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        self.mean.fill_(images.double().mean())
        self.scale.fill_(images.double().std(correction=0).clamp_min(1e-3))

    def encode(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.scale

    def decode(self, samples: Tensor) -> Tensor:
        """Clip images to [0, 1]."""
        return (samples * self.scale + self.mean).clamp(0, 1)
