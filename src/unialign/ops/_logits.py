"""Compute the logits of a contrastive loss and their derivatives, tile by tile.

Shapes: `N` selected rows, `D` dimension, `I` rows and `J` columns of a tile.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unialign.ops._kernel_functions import KernelFunction


class Logits(ABC):
    """Logits of queries and keys; the backward pass recomputes them from the same tensors."""

    tensors: tuple[Tensor, ...]
    lowest: float
    highest: float

    @abstractmethod
    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> Any:
        """Write a tile to `out_IJ`; return the values that `accumulate_grad` needs as `saved`."""

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, saved: Any) -> None:
        """Add sum_ij W_ij d logit_ij / d tensor to the gradient of each tensor. `weight_IJ` may be overwritten. The
        default is for logits <x_i, y_j>, where x and y are the first two tensors.
        """
        gradients[0][i].addmm_(weight_IJ, self.tensors[1][j])
        gradients[1][j].addmm_(weight_IJ.mT, self.tensors[0][i])

    @abstractmethod
    def dense(self) -> Tensor: ...

    def finish(self, gradients: Sequence[Tensor]) -> None:  # noqa: B027
        ...

    def masked(self, i: slice, j: slice) -> Tensor | None:
        """Mask of pairs to exclude in addition to pairs with the same id; the diagonal is ignored."""
        return None


class CosineLogits(Logits):
    """scale <x_i, y_j>."""

    def __init__(self, x_ND: Tensor, y_ND: Tensor, scale: Tensor) -> None:
        self.tensors = x_ND, y_ND, scale
        self.factor = float(scale.detach())
        # Rounding may push the product of unit rows slightly above 1.
        self.lowest, self.highest = -1.001 * self.factor, 1.001 * self.factor

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> None:
        x_ND, y_ND, _ = self.tensors
        torch.mm(x_ND[i] * self.factor, y_ND[j].mT, out=out_IJ)

    def finish(self, gradients: Sequence[Tensor]) -> None:
        # Before scaling, gradients[0] is sum_j W_ij y_j, and its inner product with x is the gradient of the scale.
        gradients[2].copy_((gradients[0] * self.tensors[0]).sum())
        gradients[0].mul_(self.factor)
        gradients[1].mul_(self.factor)

    def dense(self) -> Tensor:
        x_ND, y_ND, scale = self.tensors
        return x_ND @ y_ND.mT * scale


class TupleCosineLogits(CosineLogits):
    """scale <x_i, y_j>, where each key y_j is a product of rows of several items (Symile). Keys in which every item has
    the query's id are masked.
    """

    def __init__(self, x_ND: Tensor, y_ND: Tensor, scale: Tensor, *, codes_N: Tensor, key_codes_KN: Tensor) -> None:
        super().__init__(x_ND, y_ND, scale)
        self.codes_N, self.key_code_N = codes_N, key_codes_KN[0]
        # Only keys whose items all have the same id can be masked; there are few such keys if most ids differ.
        self.one_id_N = (key_codes_KN[1:] == key_codes_KN[0]).all(0)

    def masked(self, i: slice, j: slice) -> Tensor | None:
        if not bool(self.one_id_N[j].any()):
            return None
        return (self.codes_N[i, None] == self.key_code_N[j]) & self.one_id_N[j]


class KernelLogits(Logits):
    """log kappa(x_i, y_j)."""

    def __init__(self, x_ND: Tensor, y_ND: Tensor, *, kernel: KernelFunction) -> None:
        self.tensors = x_ND, y_ND
        self.kernel = kernel
        self.lowest, self.highest = 1.001 * kernel.lowest, -0.001 * kernel.lowest

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> Tensor | float:
        x_ND, y_ND = self.tensors
        torch.mm(x_ND[i], y_ND[j].mT, out=out_IJ)
        slope = self.kernel.slope(out_IJ)
        out_IJ.copy_(self.kernel.log(out_IJ))
        return slope

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, saved: Any) -> None:
        super().accumulate_grad(gradients, i, j, weight_IJ.mul_(saved), None)

    def dense(self) -> Tensor:
        x_ND, y_ND = self.tensors
        return self.kernel.log(x_ND @ y_ND.mT)
