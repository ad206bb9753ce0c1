"""Logits of a contrast, tile by tile, with their slopes: what `_contrast` needs to know of a table of N x N scores.

Shapes: `N` members, `D` width, `I` rows and `J` columns of a tile.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from unialign.ops._kernel_functions import KernelFunction

__all__ = ["CosineLogits", "KernelLogits", "Logits", "TupleCosineLogits"]


class Logits(Protocol):
    """Scores of query i with key j; made anew from the same tensors for the backward pass.

    Attributes:
        tensors: what the scores are differentiable by.
        lowest, highest: bounds of a score.
    """

    lowest: float
    highest: float

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> Any:
        """Write the scores to `out_IJ`; returns what `pull` wants to know of them again."""

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, known: Any) -> None:
        """Add sum_ij W_ij d score_ij / d tensor to the gradient of each tensor. `weight_IJ` may be overwritten."""

    def finish(self, gradients: Sequence[Tensor]) -> None:
        """Called after the last tile."""

    def masked(self, i: slice, j: slice) -> Tensor | None:
        """Mask of what is no key besides what equal ids say; the diagonal does not count."""

    def dense(self) -> Tensor:
        """All scores, (N, N), by operations that autograd follows."""


class CosineLogits:
    """scale <x_i, y_j>.

    Args:
        x_ND, y_ND: unit rows.
        scale: positive scalar, such as 1 / tau.
    """

    def __init__(self, x_ND: Tensor, y_ND: Tensor, scale: Tensor) -> None:
        self.tensors = x_ND, y_ND, scale
        self.factor = float(scale.detach())
        # A product of unit rows rounds to a little more than 1.
        self.lowest, self.highest = -1.001 * self.factor, 1.001 * self.factor

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> None:
        x_ND, y_ND, _ = self.tensors
        torch.mm(x_ND[i] * self.factor, y_ND[j].mT, out=out_IJ)

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, known: None) -> None:
        x_ND, y_ND, _ = self.tensors
        gradients[0][i].addmm_(weight_IJ, y_ND[j])
        gradients[1][j].addmm_(weight_IJ.mT, x_ND[i])

    def finish(self, gradients: Sequence[Tensor]) -> None:
        # Up to here sum_j W_ij y_j: what it has along x_i is the slope by the scale, summed over the row.
        gradients[2].copy_((gradients[0] * self.tensors[0]).sum())
        gradients[0].mul_(self.factor)
        gradients[1].mul_(self.factor)

    def masked(self, i: slice, j: slice) -> Tensor | None:
        return None

    def dense(self) -> Tensor:
        x_ND, y_ND, scale = self.tensors
        return x_ND @ y_ND.mT * scale


class TupleCosineLogits(CosineLogits):
    """Cosines with keys that are products of rows of several items (Symile).

    Args:
        codes_N: id of each query.
        key_codes_KN: ids of the K items that each key is made of; a key all of one query's id is none of its keys.
    """

    def __init__(self, x_ND: Tensor, y_ND: Tensor, scale: Tensor, *, codes_N: Tensor, key_codes_KN: Tensor) -> None:
        super().__init__(x_ND, y_ND, scale)
        self.codes_N, self.key_codes_KN = codes_N, key_codes_KN

    def masked(self, i: slice, j: slice) -> Tensor | None:
        return (self.codes_N[None, i, None] == self.key_codes_KN[:, None, j]).all(0)


class KernelLogits:
    """log kappa(x_i, y_j) of any kernel."""

    def __init__(self, x_ND: Tensor, y_ND: Tensor, *, profile: KernelFunction) -> None:
        self.tensors = x_ND, y_ND
        self.profile = profile
        self.lowest, self.highest = 1.001 * profile.lowest, -0.001 * profile.lowest

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> Tensor | float:
        x_ND, y_ND = self.tensors
        torch.mm(x_ND[i], y_ND[j].mT, out=out_IJ)
        slope = self.profile.slope(out_IJ)
        out_IJ.copy_(self.profile.log(out_IJ))
        return slope

    def accumulate_grad(
        self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, known: Tensor | float
    ) -> None:
        x_ND, y_ND = self.tensors
        weight_IJ.mul_(known)
        gradients[0][i].addmm_(weight_IJ, y_ND[j])
        gradients[1][j].addmm_(weight_IJ.mT, x_ND[i])

    def finish(self, gradients: Sequence[Tensor]) -> None:
        return

    def masked(self, i: slice, j: slice) -> Tensor | None:
        return None

    def dense(self) -> Tensor:
        x_ND, y_ND = self.tensors
        return self.profile.log(x_ND @ y_ND.mT)
