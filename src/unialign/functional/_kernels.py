"""Log-kernels on the unit sphere and the alignment scale that belongs to each (method: paper Eqs. 2, 9, 14).

Shapes: `B`, `T` rows, `D` width.
"""

from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Kernel",
    "arccos_squared",
    "distance_power",
    "log_kernel",
    "matched_alignment_scale",
]

Kernel = Literal["gaussian", "clip", "wang_isola", "geodesic"]
WANG_ISOLA_T = 2.0  # Wang & Isola 2020, the value that CUA and ModGap share


def log_kernel(cosine_BT: Tensor, *, kernel: Kernel, temperature: float | Tensor) -> Tensor:
    """log kappa from the cosines of unit rows; 0 for equal rows, negative elsewhere.

    `gaussian` -|x-y|^2 / (2 tau^2), as printed in Eq. 9 · `clip` -|x-y|^2 / (2 tau) = (cos - 1) / tau · `wang_isola`
    -2 |x-y|^2, without temperature · `geodesic` -arccos^2(cos) / (2 tau^2), Eq. 14.
    """
    if kernel == "gaussian":
        return (cosine_BT - 1) / (temperature * temperature)
    if kernel == "clip":
        return (cosine_BT - 1) / temperature
    if kernel == "wang_isola":
        return (cosine_BT - 1) * (2 * WANG_ISOLA_T)
    return -arccos_squared(cosine_BT) / (2 * temperature * temperature)


def matched_alignment_scale(kernel: Kernel, temperature: float) -> float:
    """The factor of |x-y|^2 in -log kappa: with it the two terms balance (M = 2 `clip` is InfoNCE's own weight)."""
    if kernel == "clip":
        return 1 / (2 * temperature)
    if kernel == "wang_isola":
        return WANG_ISOLA_T
    return 1 / (2 * temperature**2)


def arccos_squared(cosine: Tensor) -> Tensor:
    """arccos(c)^2 with a finite gradient everywhere: -2 at c = 1, where arccos itself has infinite slope.

    Near c = 1 the series in u = 1 - c is used, 2u + u^2/3 + 4u^3/45 + u^4/35: exact to 1e-13 for u < 1e-3. At c = -1
    the slope of arccos is truly infinite; the cosine is held 1e-6 (float32; 1e-12 in float64) away from it.
    """
    margin = 1e-12 if cosine.dtype == torch.float64 else 1e-6
    u = 1 - cosine
    near = u < 1e-3
    series = u * (2 + u * (1 / 3 + u * (4 / 45 + u / 35)))
    angle = torch.acos(torch.where(near, 0.0, cosine).clamp(min=-1 + margin))
    return torch.where(near, series, angle * angle)


def distance_power(square: Tensor, alpha: float) -> Tensor:
    """|x - y|^alpha from |x - y|^2, with gradient 0, not infinity, where the points coincide; alpha >= 1."""
    if alpha == 2:
        return square
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0) ** (alpha / 2), 0.0)
