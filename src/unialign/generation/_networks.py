"""Networks of the flow decoder: a residual MLP on latents (for CPUs) and a U-Net on pixels (for GPUs).

Shapes: `N` samples, `L` latents, `C` dimension of the condition, `H` width of the network, `S` x `S` pixels of an
image.
"""

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from unialign.errors import MissingDependencyError

_FREQUENCIES = 32
# `UNet2DModel` expects timesteps from 0 to 1000.
_UNET_TIME = 1000.0


def time_features(times_N: Tensor) -> Tensor:
    """Return sines and cosines (N, 64) at frequencies from 1 to 1000."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), _FREQUENCIES, dtype=times_N.dtype, device=times_N.device))
    angles = times_N[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class _Block(nn.Module):
    """Residual block h + gate * mlp(norm(h) * (1 + scale) + shift), initially the identity (adaLN-Zero, Peebles & Xie
    2023).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h_NH: Tensor, given_NH: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(given_NH).chunk(3, dim=-1)
        out_NH: Tensor = h_NH + gate * self.mlp(self.norm(h_NH) * (1 + scale) + shift)
        return out_NH


class ResidualMLP(nn.Module):
    def __init__(self, latents: int, condition: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.input = nn.Linear(latents, width)
        self.conditioning = nn.Sequential(
            nn.Linear(condition + 2 * _FREQUENCIES, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, latents)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x_NL: Tensor, times_N: Tensor, condition_NC: Tensor) -> Tensor:
        given_NH = self.conditioning(torch.cat([condition_NC, time_features(times_N)], 1))
        h_NH = self.input(x_NL)
        for block in self.blocks:
            h_NH = block(h_NH, given_NH)
        out_NL: Tensor = self.output(self.norm(h_NH))
        return out_NL


class ConditionalUNet(nn.Module):
    def __init__(self, unet: nn.Module, condition: int, width: int) -> None:
        super().__init__()
        self.unet = unet
        self.conditioning = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, times_N: Tensor, condition_NC: Tensor) -> Tensor:
        out: Tensor = self.unet(x, times_N * _UNET_TIME, class_labels=self.conditioning(condition_NC)).sample
        return out


def make_unet(size: int, condition: int, *, width: int, depth: int) -> ConditionalUNet:
    """Use 4 resolutions, or 3 if `size` is below 32. Attention is used at 16 x 16 pixels and below, but not at the full
    resolution.
    """
    try:
        diffusers: Any = import_module("diffusers")
    except ImportError:
        raise MissingDependencyError("network='unet' needs diffusers: pip install 'unialign[generate]'") from None
    levels = 4 if size >= 32 else 3
    attended = [size >> level <= 16 and level > 0 for level in range(levels)]
    groups = math.gcd(width, 32)
    unet = diffusers.UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(width * factor for factor in (1, 2, 2, 4)[:levels]),
        layers_per_block=depth,
        down_block_types=tuple("AttnDownBlock2D" if there else "DownBlock2D" for there in attended),
        up_block_types=tuple("AttnUpBlock2D" if there else "UpBlock2D" for there in reversed(attended)),
        norm_num_groups=groups,
        attention_head_dim=groups,
        class_embed_type="identity",
    )
    return ConditionalUNet(unet, condition, 4 * width)
