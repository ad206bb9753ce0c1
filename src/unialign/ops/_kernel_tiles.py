"""Kernel values between rows of one set, in tiles: all rows, or the local rows of one process against all rows.

Shapes: `N` selected rows, `R` local ones, `D` dimension, `I` rows and `J` columns of a tile.
"""

from bisect import bisect_left
from collections.abc import Iterator

import torch
from torch import Tensor

from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._row_selection import RowSelection, SelfPairs
from unialign.ops._tiles import rectangle, upper_triangle

__all__ = ["LocalTiles", "Tiles"]

# exp of logits in [-_SPAN / 2, _SPAN / 2], summed over a million rows, stays in float32's range (e^-87 to e^88).
_SPAN = 80.0


class Tiles:
    """Compute the tiles on and above the diagonal, one at a time in one buffer.

    Attributes:
        plain_exp: whether all exponentials of the logits fit the dtype's range without a shift.
        offset: log kappa = logit - offset. With a log-linear kernel the logits are rate * cosine.
    """

    def __init__(
        self, z_ND: Tensor, kernel: KernelFunction, selection: RowSelection, self_pairs: SelfPairs, side: int
    ) -> None:
        self.z_ND, self.kernel, self.selection = z_ND, kernel, selection
        self.self_pairs, self.side = self_pairs, side
        # Multiply the rate into one factor of the product, which saves a pass over the tile.
        self.rate = 1.0 if kernel.rate is None else kernel.rate
        self.offset = 0.0 if kernel.rate is None else kernel.rate
        self.plain_exp = -kernel.lowest <= _SPAN
        longest = min(side, len(z_ND))
        self.buffer = z_ND.new_empty(longest * longest)
        self.spare = z_ND.new_empty(longest * longest)

    def logits(self) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        """Yield slices, logits, and the slope of log kappa; None for the constant slope of a log-linear kernel."""
        scaled, scaled_ID = slice(0, 0), self.z_ND[:0]
        for i, j in upper_triangle(len(self.z_ND), side=self.side):
            if i != scaled:
                scaled, scaled_ID = i, self.z_ND[i] * self.rate
            yield i, j, *self.tile(scaled_ID, j)

    def tile(self, scaled_ID: Tensor, j: slice) -> tuple[Tensor, Tensor | None]:
        """Return logits and slope of rows that are already multiplied by the rate, and the columns j."""
        logit_IJ = self.buffer[: len(scaled_ID) * (j.stop - j.start)].view(len(scaled_ID), -1)
        torch.mm(scaled_ID, self.z_ND[j].mT, out=logit_IJ)
        if self.kernel.rate is not None:
            return logit_IJ, None
        slope_IJ = torch.as_tensor(self.kernel.slope(logit_IJ))
        return logit_IJ.copy_(self.kernel.log(logit_IJ)), slope_IJ

    def mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        """Mask pairs excluded from the sum: same-id pairs, and self pairs if excluded."""
        if i == j and self.self_pairs == "excluded":
            x_IJ.diagonal().fill_(value)
        same_IJ = self.selection.same_id(i, j)
        if same_IJ is not None:
            if i == j and self.self_pairs == "included":
                same_IJ.diagonal().fill_(False)
            x_IJ.masked_fill_(same_IJ, value)

    @property
    def rows(self) -> int:
        """Return the number of rows of a gradient."""
        return len(self.z_ND)

    def of_rows(self, a_N: Tensor) -> Tensor:
        """Select the entries of the rows covered by tiles."""
        return a_N

    def multiplicity(self, i: slice, j: slice) -> int:
        """Return 2 for off-diagonal tiles, which also represent their transpose, else 1."""
        return 1 if i == j else 2

    def outer_sum(self, a_N: Tensor, i: slice, j: slice) -> Tensor:
        """Return a_i + a_j over a tile."""
        out_IJ = self.spare[: (i.stop - i.start) * (j.stop - j.start)].view(i.stop - i.start, -1)
        return torch.add(self.of_rows(a_N)[i, None], a_N[j], out=out_IJ)

    def accumulate_grad(self, gradient_ND: Tensor, i: slice, j: slice, weight_IJ: Tensor) -> None:
        """Add sum_j W_ij z_j to the rows and, off the diagonal, sum_i W_ij z_i to the columns."""
        gradient_ND[i].addmm_(weight_IJ, self.z_ND[j])
        if i != j:
            gradient_ND[j].addmm_(weight_IJ.mT, self.z_ND[i])

    def all_rows(self, gradient: Tensor) -> Tensor:
        """Return a gradient as (N, D), with zeros in the rows of other processes."""
        return gradient


class LocalTiles(Tiles):
    """Tiles of the local rows against all rows, without self pairs; no tile represents its transpose.

    Rows of a tile are numbered among the R, columns among the N.
    """

    def __init__(self, z_ND: Tensor, kernel: KernelFunction, selection: RowSelection, side: int) -> None:
        super().__init__(z_ND, kernel, selection, "excluded", side)
        assert selection.local_R is not None
        self.local_R, self.positions = selection.local_R, selection.local_R.tolist()
        self.x_RD = z_ND[self.local_R]
        self.codes_R = None if selection.codes_N is None else selection.codes_N[self.local_R]

    def logits(self) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        for i, j in rectangle(len(self.x_RD), len(self.z_ND), side=self.side):
            yield i, j, *self.tile(self.x_RD[i] * self.rate, j)

    def mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        # Positions ascend, so rows whose self pair is in the tile are contiguous.
        first = max(i.start, bisect_left(self.positions, j.start))
        stop = min(i.stop, bisect_left(self.positions, j.stop))
        if first < stop:
            rows = torch.arange(first - i.start, stop - i.start, device=x_IJ.device)
            x_IJ[rows, self.local_R[first:stop] - j.start] = value
        codes_N = self.selection.codes_N
        if codes_N is not None and self.codes_R is not None:
            x_IJ.masked_fill_(self.codes_R[i, None] == codes_N[j], value)

    @property
    def rows(self) -> int:
        return len(self.x_RD)

    def of_rows(self, a_N: Tensor) -> Tensor:
        return a_N[self.local_R]

    def multiplicity(self, i: slice, j: slice) -> int:
        return 1

    def accumulate_grad(self, gradient_RD: Tensor, i: slice, j: slice, weight_IJ: Tensor) -> None:
        gradient_RD[i].addmm_(weight_IJ, self.z_ND[j])

    def all_rows(self, gradient: Tensor) -> Tensor:
        return self.selection.scatter(gradient, self.z_ND)
