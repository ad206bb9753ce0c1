"""Kernels on the unit sphere as functions of the cosine (method: paper Eqs. 2, 9, 14).

Shapes: `T`, `S` rows of a tile.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["WANG_ISOLA_T", "Kernel", "KernelFunction", "arccos_squared", "log_kernel"]

Kernel = Literal["gaussian", "clip", "wang_isola", "geodesic"]
WANG_ISOLA_T = 2.0  # Wang & Isola 2020, the value that CUA and ModGap share


@dataclass(frozen=True)
class KernelFunction:
    """log kappa as a function of the cosine: what a tile needs to know of a kernel."""

    kernel: Kernel
    temperature: float

    @property
    def rate(self) -> float | None:
        """a where log kappa = a (cos - 1); None where it is no line."""
        if self.kernel == "gaussian":
            return 1 / (self.temperature * self.temperature)
        if self.kernel == "clip":
            return 1 / self.temperature
        return 2 * WANG_ISOLA_T if self.kernel == "wang_isola" else None

    @property
    def lowest(self) -> float:
        """log kappa of opposite rows; that of equal rows is 0."""
        return float(
            log_kernel(torch.tensor(-1.0, dtype=torch.float64), kernel=self.kernel, temperature=self.temperature)
        )

    def log(self, cosine_TS: Tensor) -> Tensor:
        """log kappa."""
        return log_kernel(cosine_TS, kernel=self.kernel, temperature=self.temperature)

    def slope(self, cosine_TS: Tensor) -> Tensor | float:
        """d log kappa / d cos."""
        if self.rate is not None:
            return self.rate
        return -arccos_squared_slope(cosine_TS) / (2 * self.temperature * self.temperature)


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


def arccos_squared_slope(cosine: Tensor) -> Tensor:
    """The derivative of `arccos_squared`: -2 arccos(c) / sqrt(1 - c^2), by the same series near c = 1."""
    margin = 1e-12 if cosine.dtype == torch.float64 else 1e-6
    u = 1 - cosine
    near = u < 1e-3
    series = -(2 + u * (2 / 3 + u * (12 / 45 + u * (4 / 35))))
    inside = torch.where(near, 0.0, cosine)
    held = inside.clamp(min=-1 + margin)
    slope = -2 * torch.acos(held) / torch.sqrt(1 - held * held)
    return torch.where(near, series, torch.where(inside < held, 0.0, slope))
