"""The frame of a frozen modality: its features, centred and whitened, are its embeddings, and there is a way back.

A decoder of image embeddings (unCLIP) reads what its image encoder says, so that a space for it leaves the images where
they are and moves everything else. Raw features of a frozen encoder are a poor target: they lie in a narrow cone, off
the centre. The frame centres them, turns them onto their principal axes and evens out their variances.

Shapes: `B` rows, `W` width of the features, `D` width of the space.
"""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_choice
from unialign.config import WhiteningMode
from unialign.errors import ConfigError, DataError, NonFiniteError

__all__ = ["Whitening", "check_frozen"]

_CHUNK_ROWS = 8192
# A direction with less of the largest variance than this is rounding, and whitening would blow it up.
_LEAST_VARIANCE = 1e-10


class Whitening(nn.Module):
    """z = (x - mean) axes / scale, an affine map without trained numbers; all of it is buffers, saved with the space.

    Args:
        framing: `whiten`: the D leading principal axes of the training rows, each divided by its standard deviation.
            `center`: the same axes, all divided by one number, so that angles between centred features stay.
        width: W.
        dim: D, at most W.
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor
    length: Tensor

    def __init__(self, framing: str, width: int, dim: int) -> None:
        super().__init__()
        self.framing = framing
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width, dim))
        self.register_buffer("scale", torch.ones(dim))
        # How long a training row is in the frame, in the mean: unit rows go back to that length.
        self.register_buffer("length", torch.ones(()))

    def forward(self, x_BW: Tensor) -> Tensor:
        """(B, W) features -> (B, D), not of unit length."""
        return (x_BW - self.mean) @ self.axes / self.scale

    def inverse_transform(self, z_BD: Tensor) -> Tensor:
        """(B, D) rows of unit length -> (B, W) features of the typical length; shorter rows stay closer to the mean."""
        return (z_BD * self.length * self.scale) @ self.axes.mT + self.mean

    @torch.no_grad()
    def fit(self, array_NW: NDArray[np.floating], rows: NDArray[np.int64], *, name: str) -> None:
        """Take mean, axes and scale from these rows, in float64, in pieces.

        Raises:
            DataError: fewer than D directions vary in them.
            NonFiniteError: a row is not finite.
        """
        pieces = [rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)]
        dim = len(self.scale)
        with np.errstate(invalid="ignore", over="ignore"):  # infinite features are refused below, by row
            mean_W = sum(array_NW[piece].astype(np.float64).sum(0) for piece in pieces) / len(rows)
            centred = (array_NW[piece].astype(np.float64) - mean_W for piece in pieces)
            covariance_WW = sum(x.T @ x for x in centred) / len(rows)
        if not np.isfinite(covariance_WW).all():
            bad = next(int(row) for row in rows if not np.isfinite(array_NW[row].astype(np.float32)).all())
            raise NonFiniteError(
                f"{name!r}, row {bad}, is not finite in float32; mark items without {name!r} as absent"
            )
        variance_W, axes_WW = torch.linalg.eigh(torch.from_numpy(covariance_WW))
        variance_D, axes_WD = variance_W.flip(0)[:dim], axes_WW.flip(1)[:, :dim]
        if int((variance_D > _LEAST_VARIANCE * variance_D[0]).sum()) < dim or not variance_D[0] > 0:
            rank = int((variance_W > _LEAST_VARIANCE * variance_W.max()).sum()) if variance_W.max() > 0 else 0
            raise DataError(
                f"{name!r} varies in {rank} directions over its {len(rows)} training rows, fewer than dim={dim}; a "
                f"frozen modality cannot fill the space: set dim to at most {max(rank, 1)}, or use more rows"
            )
        # The sign of an axis is free; the largest entry is made positive so that equal data give equal frames.
        largest_D = axes_WD.abs().argmax(0)
        axes_WD = axes_WD * axes_WD[largest_D, torch.arange(dim)].sign()
        deviation_D = variance_D.sqrt()
        scale_D = deviation_D if self.framing == "whiten" else deviation_D.square().mean().sqrt().expand(dim)
        lengths = [
            np.linalg.norm((array_NW[piece].astype(np.float64) - mean_W) @ axes_WD.numpy() / scale_D.numpy(), axis=1)
            for piece in pieces
        ]
        self.mean.copy_(torch.from_numpy(np.asarray(mean_W)))
        self.axes.copy_(axes_WD)
        self.scale.copy_(scale_D)
        self.length.fill_(float(np.concatenate(lengths).mean()))


def check_frozen(frozen: Any, widths: Mapping[str, int], dim: int) -> dict[str, WhiteningMode]:
    """The option `frozen` as a dict; `ConfigError` unless a frame of `dim` directions can be made for each modality."""
    if frozen is None:
        return {}
    if not isinstance(frozen, Mapping):
        raise ConfigError(f"frozen must map modality to framing, such as {{'image': 'whiten'}}; got {frozen!r}")
    for name, framing in frozen.items():
        if name not in widths:
            raise ConfigError(f"frozen names {name!r}, which the space does not have; it has {', '.join(widths)}")
        check_choice(f"framing of {name!r}", framing, get_args(WhiteningMode))
        if widths[name] < dim:
            raise ConfigError(
                f"{name!r} is {widths[name]} wide and frozen, so that it cannot fill dim={dim}; set dim to at most "
                f"{widths[name]}"
            )
    return dict(frozen)
