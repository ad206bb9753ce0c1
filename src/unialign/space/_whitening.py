"""Whitening of frozen modalities, which maps features to embeddings and back.

An unCLIP decoder requires embeddings of its own image encoder, so a space for it freezes the image embeddings. Raw
features are a poor target, since they lie in a narrow cone away from the origin.

Shapes: `B` rows, `W` dimension of the features, `D` dimension of the space.
"""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_choice, suggestion
from unialign.config import WhiteningMode
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.space._moments import column_covariance, row_lengths_mean

# Directions whose variance is below this fraction of the largest variance are rounding errors, which whitening would
# amplify.
_LEAST_VARIANCE = 1e-10


class Whitening(nn.Module):
    """Affine map z = (x - mean) axes / scale; all tensors are buffers.

    Args:
        mode: `whiten` projects onto the D leading principal axes of the training rows and divides by the standard
            deviation along each axis; `center` divides all axes by the same number, which preserves angles between
            centered features.
        in_dim: dim W of the features.
        dim: dim D of the embeddings, at most W.
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor
    length: Tensor

    def __init__(self, mode: str, in_dim: int, dim: int) -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("mean", torch.zeros(in_dim))
        self.register_buffer("axes", torch.eye(in_dim, dim))
        self.register_buffer("scale", torch.ones(dim))
        # Mean norm of the whitened training rows, to which the inverse scales unit rows.
        self.register_buffer("length", torch.ones(()))

    def forward(self, x_BW: Tensor) -> Tensor:
        """Map features (B, W) to embeddings (B, D) without normalizing them."""
        return (x_BW - self.mean) @ self.axes / self.scale

    def inverse_transform(self, z_BD: Tensor) -> Tensor:
        """Map unit rows (B, D) to features (B, W) of typical norm; shorter rows map closer to the mean."""
        return (z_BD * self.length * self.scale) @ self.axes.mT + self.mean

    @torch.no_grad()
    def fit(self, array_NW: NDArray[np.floating], rows: NDArray[np.int64], *, name: str) -> None:
        """Set the mean, axes and scale from the given rows in float64; errors as in `Space.fit_normalizer`."""
        dim = len(self.scale)
        mean_W, covariance_WW = column_covariance(array_NW, rows)
        if not bool(torch.isfinite(covariance_WW).all()):
            bad = next(int(row) for row in rows if not np.isfinite(array_NW[row].astype(np.float32)).all())
            raise NonFiniteError(
                f"{name!r}, row {bad}, is not finite in float32; mark items without {name!r} as absent"
            )
        variance_W, axes_WW = torch.linalg.eigh(covariance_WW)
        variance_D, axes_WD = variance_W.flip(0)[:dim], axes_WW.flip(1)[:, :dim]
        if int((variance_D > _LEAST_VARIANCE * variance_D[0]).sum()) < dim or not variance_D[0] > 0:
            rank = int((variance_W > _LEAST_VARIANCE * variance_W.max()).sum()) if variance_W.max() > 0 else 0
            raise DataError(
                f"{name!r} varies in {rank} directions over its {len(rows)} training rows, fewer than dim={dim}; "
                f"set dim to at most {max(rank, 1)}, or use more rows"
            )
        # Make the largest entry of each axis positive, since signs are arbitrary and equal data must give equal axes.
        largest_D = axes_WD.abs().argmax(0)
        axes_WD = axes_WD * axes_WD[largest_D, torch.arange(dim)].sign()
        deviation_D = variance_D.sqrt()
        scale_D = deviation_D if self.mode == "whiten" else deviation_D.square().mean().sqrt().expand(dim)
        self.mean.copy_(mean_W)
        self.axes.copy_(axes_WD)
        self.scale.copy_(scale_D)
        self.length.fill_(row_lengths_mean(array_NW, rows, mean_W, axes_WD, scale_D))


def check_frozen(frozen: Any, dims: Mapping[str, int], dim: int) -> dict[str, WhiteningMode]:
    """Return `frozen` as a dict; raise ConfigError if a modality, its mode or its dim is invalid."""
    if frozen is None:
        return {}
    if not isinstance(frozen, Mapping):
        raise ConfigError(
            f"frozen must map modalities to whitening modes, such as {{'image': 'whiten'}}; got {frozen!r}"
        )
    for name, mode in frozen.items():
        if name not in dims:
            raise ConfigError(
                f"unknown modality {name!r} in frozen; this space has {', '.join(dims)}{suggestion(name, dims)}"
            )
        check_choice("transform", mode, get_args(WhiteningMode), owner=f"the frozen modality {name!r}")
        if dims[name] < dim:
            raise ConfigError(
                f"the frozen modality {name!r} has dim {dims[name]}, less than dim={dim}; set dim to at most "
                f"{dims[name]}"
            )
    return dict(frozen)
