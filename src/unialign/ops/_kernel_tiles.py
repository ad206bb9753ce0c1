"""Compute kernel values between the local rows of a process and all rows, in tiles.

Shapes: `N` selected rows, `R` local rows, `D` dimension, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._row_selection import RowSelection, SelfPairs
from unialign.ops._tiles import rectangle, tile_view, upper_triangle

# Exponentials of logits in [-_SPAN / 2, _SPAN / 2], summed over a million rows, are in float32's range (e^-87 to e^88).
_SPAN = 80.0


class KernelTiles:
    """Compute the tiles of an R x N matrix of logits, one at a time in a reused buffer.

    On one process, R = N and only tiles on and above the diagonal are computed; a tile above the diagonal also
    represents its transpose.

    Attributes:
        plain_exp: whether all exponentials of the logits are in the dtype's range without a shift.
        offset: constant in log kappa = logit - offset. For log-linear kernels, the logits are rate * cosine.
    """

    def __init__(
        self, z_ND: Tensor, kernel: KernelFunction, selection: RowSelection, self_pairs: SelfPairs, side: int
    ) -> None:
        self.z_ND, self.kernel, self.selection = z_ND, kernel, selection
        self.self_pairs, self.side = self_pairs, side
        self.symmetric = selection.local_R is None
        self.x_RD = selection.local(z_ND)
        # Multiply the rate into one factor of the product, to save a pass over the tile.
        self.rate = 1.0 if kernel.rate is None else kernel.rate
        self.offset = 0.0 if kernel.rate is None else kernel.rate
        self.plain_exp = -kernel.lowest <= _SPAN
        longest = min(side, len(z_ND))
        self.buffer, self.spare = (z_ND.new_empty(longest * longest) for _ in range(2))

    def logits(self) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        """Yield the slices, logits and d log kappa / d cos of each tile; the last is None for log-linear kernels."""
        rows, columns = len(self.x_RD), len(self.z_ND)
        slices = upper_triangle(rows, side=self.side) if self.symmetric else rectangle(rows, columns, side=self.side)
        scaled, scaled_ID = slice(0, 0), self.x_RD[:0]
        for i, j in slices:
            if i != scaled:
                scaled, scaled_ID = i, self.x_RD[i] * self.rate
            logit_IJ = torch.mm(scaled_ID, self.z_ND[j].mT, out=tile_view(self.buffer, i, j))
            slope_IJ = None
            if self.kernel.rate is None:
                slope_IJ = torch.as_tensor(self.kernel.slope(logit_IJ))
                logit_IJ.copy_(self.kernel.log(logit_IJ))
            yield i, j, logit_IJ, slope_IJ

    def mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        self.selection.mask_(x_IJ, i, j, value, self_pairs=self.self_pairs)

    def multiplicity(self, i: slice, j: slice) -> int:
        """2 for tiles that also represent their transpose, else 1."""
        return 2 if self.symmetric and i != j else 1

    def outer_sum(self, a_N: Tensor, i: slice, j: slice) -> Tensor:
        return torch.add(self.selection.local(a_N)[i, None], a_N[j], out=tile_view(self.spare, i, j))

    def accumulate_grad(self, gradient_RD: Tensor, i: slice, j: slice, weight_IJ: Tensor) -> None:
        """Add sum_j W_ij z_j to the rows and, if the tile represents its transpose, sum_i W_ij z_i to the columns."""
        gradient_RD[i].addmm_(weight_IJ, self.z_ND[j])
        if self.multiplicity(i, j) == 2:
            gradient_RD[j].addmm_(weight_IJ.mT, self.z_ND[i])
