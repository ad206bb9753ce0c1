"""Modules of the built-in encoders. Initial weights depend only on the seed.

Shapes: `n` items, `K` buckets, `D` length of the features, `L` frames, `B` bands, `S` side of an image.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from unialign.encoders._built import Batch
from unialign.encoders._encoder import Prepared
from unialign.encoders._seeded import seeded_signs, seeded_uniform

_IMAGE_CHANNELS = (3, 32, 64, 96, 128, 160)
_SOUND_CHANNELS = (96, 128, 160)


class BucketProjection(nn.Module):
    """Multiply counts of buckets (n, K) by a matrix (K, D) whose initial entries are random signs."""

    def __init__(self, buckets: int, dim: int, seed: int) -> None:
        super().__init__()
        self.weight_KD = nn.Parameter(torch.from_numpy(seeded_signs((buckets, dim), seed=seed)) / dim**0.5)

    def forward(self, counts: Tensor) -> Tensor:
        return counts.to(self.weight_KD.dtype) @ self.weight_KD


class ImageConvolutions(nn.Module):
    """Map uint8 images (n, 3, S, S) to the mean and the maximum, over positions, of five convolutions."""

    dim = 2 * _IMAGE_CHANNELS[-1]

    def __init__(self, seed: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place, (source, target) in enumerate(pairwise(_IMAGE_CHANNELS)):
            stride = 2 if place < 4 else 1
            layers += [nn.Conv2d(source, target, 3, stride, 1), nn.GroupNorm(8, target), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        seed_weights(self, seed)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.layers((pixels.float() / 127.5 - 1).to(next(self.parameters()).dtype)).flatten(2)
        return torch.cat([maps.mean(2), maps.amax(2)], 1)


class SoundConvolutions(nn.Module):
    """Map log-mel frames (n, L, B) to the mean and the maximum over time. Padding does not affect the features."""

    dim = 2 * _SOUND_CHANNELS[-1]

    def __init__(self, bands: int, seed: int) -> None:
        super().__init__()
        pairs = list(pairwise((bands, *_SOUND_CHANNELS)))
        self.convolutions = nn.ModuleList(nn.Conv1d(source, target, 5, 2, 2) for source, target in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(target) for _, target in pairs)
        seed_weights(self, seed)

    def forward(self, frames: Tensor, length: Tensor) -> Tensor:
        # Log-mel values are between about -18 and 8.
        maps = (frames / 8 + 1).to(next(self.parameters()).dtype).transpose(1, 2)
        valid = length.flatten()
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = maps.masked_fill(~_mask(valid, maps.shape[2])[:, None], 0)
            valid = (valid + 1) // 2
            maps = nn.functional.gelu(norm(convolution(maps).transpose(1, 2))).transpose(1, 2)
        mask = _mask(valid, maps.shape[2])[:, None]
        mean = maps.masked_fill(~mask, 0).sum(2) / valid[:, None]
        return torch.cat([mean, maps.masked_fill(~mask, -torch.inf).amax(2)], 1)


def dense_counts(prepared: Sequence[Prepared], buckets: int) -> Batch:
    counts = torch.zeros(len(prepared), buckets)
    for row, item in enumerate(prepared):
        counts[row, torch.from_numpy(item["buckets"])] = torch.from_numpy(item["weights"])
    return {"counts": counts}


@torch.no_grad()
def seed_weights(module: nn.Module, seed: int) -> None:
    """Draw weights with He initialization; biases are 0."""
    for place, layer in enumerate(module.modules()):
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            drawn = torch.from_numpy(seeded_uniform(tuple(layer.weight.shape), seed=1000 * seed + place))
            layer.weight.copy_(drawn * (6 / layer.weight[0].numel()) ** 0.5)
            if layer.bias is not None:
                layer.bias.zero_()


def _mask(length: Tensor, longest: int) -> Tensor:
    return torch.arange(longest, device=length.device)[None, :] < length[:, None]
