"""Convolutional network: `UNet2DModel` of diffusers, with the condition as class embedding.

Shapes: `N` images, `S` pixels a side, `C` dimension of the condition.
"""

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from unialign.errors import MissingDependencyError

__all__ = ["ConditionalUNet", "make_unet"]

# `UNet2DModel` expects diffusion steps from 0 to 1000.
_TIME = 1000.0


class ConditionalUNet(nn.Module):
    """U-Net that predicts the clean image.

    Args:
        unet: `UNet2DModel` with `class_embed_type="identity"`.
        condition: C.
        width: width of the class embedding.
    """

    def __init__(self, unet: nn.Module, condition: int, width: int) -> None:
        super().__init__()
        self.unet = unet
        self.given = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, times_N: Tensor, condition_NC: Tensor) -> Tensor:
        out: Tensor = self.unet(x, times_N * _TIME, class_labels=self.given(condition_NC)).sample
        return out


def make_unet(size: int, condition: int, *, width: int, depth: int) -> ConditionalUNet:
    """Build a U-Net of 1, 2, 2 and 4 times the width by level (three below 32 pixels), attention up to 16 x 16."""
    try:
        diffusers: Any = import_module("diffusers")
    except ImportError:
        raise MissingDependencyError("network='unet' needs diffusers: pip install 'unialign[generate]'") from None
    levels = 4 if size >= 32 else 3
    channels = tuple(width * factor for factor in (1, 2, 2, 4)[:levels])
    attended = [size >> level <= 16 and level > 0 for level in range(levels)]
    unet = diffusers.UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        block_out_channels=channels,
        layers_per_block=depth,
        down_block_types=tuple("AttnDownBlock2D" if there else "DownBlock2D" for there in attended),
        up_block_types=tuple("AttnUpBlock2D" if there else "UpBlock2D" for there in reversed(attended)),
        norm_num_groups=_groups(width),
        attention_head_dim=_groups(width),
        class_embed_type="identity",
    )
    return ConditionalUNet(unet, condition, 4 * width)


def _groups(width: int) -> int:
    """Return the largest power of 2, at most 32, that divides the number of channels."""
    return next(groups for groups in (32, 16, 8, 4, 2, 1) if width % groups == 0)
