"""Residual MLP on latents, modulated by time and condition, for training on a CPU.

Shapes: `N` samples, `L` latents, `C` dimension of the condition, `H` width of the network.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["ResidualMLP", "time_features"]

_FREQUENCIES = 32


def time_features(times_N: Tensor) -> Tensor:
    """Return (N, 64) sines and cosines of a time in [0, 1] at frequencies from 1 to 1000."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), _FREQUENCIES, dtype=times_N.dtype, device=times_N.device))
    angles = times_N[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class _Block(nn.Module):
    """h + gate * mlp(norm(h) * (1 + scale) + shift); scale, shift and gate are functions of the condition.

    adaLN-Zero (Peebles & Xie 2023): all three are initialized to 0, so that the network starts as the identity.
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
    """Residual MLP that predicts the clean latents.

    Args:
        latents: L.
        condition: C.
        width: H.
        depth: number of blocks.
    """

    def __init__(self, latents: int, condition: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.inward = nn.Linear(latents, width)
        self.given = nn.Sequential(
            nn.Linear(condition + 2 * _FREQUENCIES, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, latents)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)

    def forward(self, x_NL: Tensor, times_N: Tensor, condition_NC: Tensor) -> Tensor:
        given_NH = self.given(torch.cat([condition_NC, time_features(times_N)], 1))
        h_NH = self.inward(x_NL)
        for block in self.blocks:
            h_NH = block(h_NH, given_NH)
        out_NL: Tensor = self.outward(self.norm(h_NH))
        return out_NL
