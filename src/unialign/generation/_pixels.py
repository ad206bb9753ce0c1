"""Images as they are, scaled to the size of the noise that they are mixed with.

Shapes: `N` images, `S` pixels a side.
"""

import torch
from torch import Tensor, nn

__all__ = ["PixelBasis"]


class PixelBasis(nn.Module):
    """(image - mean) / deviation, one mean and one deviation over all training pixels, as buffers.

    Args:
        size: S.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("scale", torch.tensor(0.5))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (3, self.size, self.size)

    @property
    def numbers(self) -> int:
        """Of one sample."""
        return 3 * self.size * self.size

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the mean and the deviation of (N, 3, S, S) images in [0, 1]."""
        self.mean.fill_(images.double().mean())
        self.scale.fill_(images.double().std(correction=0).clamp_min(1e-3))

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, 3, S, S)."""
        return (images - self.mean) / self.scale

    def decode(self, samples: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, 3, S, S), clipped to [0, 1]."""
        return (samples * self.scale + self.mean).clamp(0, 1)
