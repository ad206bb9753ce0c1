"""Compute kernels on the unit sphere as functions of the cosine (paper Eqs. 2, 9, 14).

Shapes: `T` rows and `S` columns of a tile.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["gaussian", "clip", "wang_isola", "geodesic"]
WANG_ISOLA_T = 2.0  # Wang & Isola 2020; CUA and ModGap use the same value


@dataclass(frozen=True)
class KernelFunction:
    """Logarithm of a kernel of unit rows x and y, as a function of their cosine.

    log kappa is 0 for equal rows and negative otherwise:

    - `gaussian`: -|x-y|^2 / (2 tau^2), as printed in Eq. 9
    - `clip`: -|x-y|^2 / (2 tau) = (cos - 1) / tau
    - `wang_isola`: -2 |x-y|^2, without temperature
    - `geodesic`: -arccos^2(cos) / (2 tau^2), Eq. 14
    """

    name: Kernel
    temperature: float = 1.0

    @property
    def rate(self) -> float | None:
        """Factor a of log kappa = a (cos - 1); None for a kernel that is not log-linear in the cosine."""
        if self.name == "gaussian":
            return 1 / (self.temperature * self.temperature)
        if self.name == "clip":
            return 1 / self.temperature
        return 2 * WANG_ISOLA_T if self.name == "wang_isola" else None

    @property
    def lowest(self) -> float:
        return float(self.log(torch.tensor(-1.0, dtype=torch.float64)))

    def log(self, cosine_TS: Tensor) -> Tensor:
        if self.name == "gaussian":
            return (cosine_TS - 1) / (self.temperature * self.temperature)
        if self.name == "clip":
            return (cosine_TS - 1) / self.temperature
        if self.name == "wang_isola":
            return (cosine_TS - 1) * (2 * WANG_ISOLA_T)
        return -arccos_squared(cosine_TS) / (2 * self.temperature * self.temperature)

    def slope(self, cosine_TS: Tensor) -> Tensor | float:
        """d log kappa / d cos."""
        if self.rate is not None:
            return self.rate
        return -_arccos_squared_slope(cosine_TS) / (2 * self.temperature * self.temperature)


def arccos_squared(cosine: Tensor) -> Tensor:
    """Return arccos(c)^2 with a finite gradient everywhere, even at c = 1 and c = -1, where that of arccos is infinite.

    For u = 1 - c < 1e-3, the series 2u + u^2/3 + 4u^3/45 + u^4/35 is used, with an error below 1e-13; the gradient at
    c = 1 is -2. Near c = -1, cosines are clamped to at least -1 + 1e-6 (-1 + 1e-12 in float64).
    """
    u = 1 - cosine
    near = u < 1e-3
    series = u * (2 + u * (1 / 3 + u * (4 / 45 + u / 35)))
    angle = torch.acos(torch.where(near, 0.0, cosine).clamp(min=-1 + _margin(cosine)))
    return torch.where(near, series, angle * angle)


def _arccos_squared_slope(cosine: Tensor) -> Tensor:
    """-2 arccos(c) / sqrt(1 - c^2), by the same series near c = 1."""
    u = 1 - cosine
    near = u < 1e-3
    series = -(2 + u * (2 / 3 + u * (12 / 45 + u * (4 / 35))))
    inside = torch.where(near, 0.0, cosine)
    clamped = inside.clamp(min=-1 + _margin(cosine))
    slope = -2 * torch.acos(clamped) / torch.sqrt(1 - clamped * clamped)
    return torch.where(near, series, torch.where(inside < clamped, 0.0, slope))


def _margin(cosine: Tensor) -> float:
    return 1e-12 if cosine.dtype == torch.float64 else 1e-6
