"""The table of kernel values of rows with themselves, tile by tile: whole, or the rows that one process answers for.

Shapes: `N` members, `R` of them this process's own, `D` width, `I` rows and `J` columns of a tile.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import rectangle, upper_triangle

__all__ = ["SPAN", "OwnTiles", "SelfPairs", "Tiles"]

SelfPairs = Literal["included", "excluded"]

# exp of logits in [-SPAN / 2, SPAN / 2], summed over a million rows, stays in float32's range (e^-87 to e^88).
SPAN = 80.0


class Tiles:
    """Tiles on and above the diagonal, one at a time in one buffer.

    Attributes:
        narrow: whether the exponentials of all logits fit the dtype with one shift.
        offset: log kappa = logit - offset.
    """

    def __init__(
        self, z_ND: Tensor, profile: KernelFunction, members: RowSelection, self_pairs: SelfPairs, side: int
    ) -> None:
        self.z_ND, self.profile, self.members = z_ND, profile, members
        self.self_pairs, self.side = self_pairs, side
        # A line's factor goes into one side of the product: no pass over the tile is spent on it.
        self.rate = 1.0 if profile.rate is None else profile.rate
        self.narrow = -profile.lowest <= SPAN
        # log kappa = logit - offset; for a line that spans little the logits need not be shifted at all.
        self.offset = 0.0 if profile.rate is None else profile.rate
        longest = min(side, len(z_ND))
        self.buffer = z_ND.new_empty(longest * longest)
        self.spare = z_ND.new_empty(longest * longest)

    def logits(self) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        """Slices, logits (rate * cosine, or log kappa of a kernel that is no line), and the slope of the latter."""
        scaled, scaled_ID = slice(0, 0), self.z_ND[:0]
        for i, j in upper_triangle(len(self.z_ND), side=self.side):
            if i != scaled:
                scaled, scaled_ID = i, self.z_ND[i] * self.rate
            yield i, j, *self.tile(scaled_ID, j)

    def tile(self, scaled_ID: Tensor, j: slice) -> tuple[Tensor, Tensor | None]:
        """Logits and slope of some rows, which bring the rate with them, and the columns j."""
        logit_IJ = self.buffer[: len(scaled_ID) * (j.stop - j.start)].view(len(scaled_ID), -1)
        torch.mm(scaled_ID, self.z_ND[j].mT, out=logit_IJ)
        if self.profile.rate is not None:
            return logit_IJ, None
        slope_IJ = torch.as_tensor(self.profile.slope(logit_IJ))
        return logit_IJ.copy_(self.profile.log(logit_IJ)), slope_IJ

    def mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        """Overwrite the pairs that do not count: a row with itself, and rows of one id, which stand side by side."""
        if i == j and self.self_pairs == "excluded":
            x_IJ.diagonal().fill_(value)
        same_IJ = self.members.same_id(i, j)
        if same_IJ is not None:
            if i == j and self.self_pairs == "included":
                same_IJ.diagonal().fill_(False)
            x_IJ.masked_fill_(same_IJ, value)

    @property
    def rows(self) -> int:
        """How many rows a gradient has."""
        return len(self.z_ND)

    def of_rows(self, a_N: Tensor) -> Tensor:
        """The rows' part of numbers of all members."""
        return a_N

    def multiplicity(self, i: slice, j: slice) -> int:
        """How often the pairs of a tile count: off the diagonal it stands for its mirror image as well."""
        return 1 if i == j else 2

    def outer_sum(self, a_N: Tensor, i: slice, j: slice) -> Tensor:
        """a_i + a_j over a tile."""
        out_IJ = self.spare[: (i.stop - i.start) * (j.stop - j.start)].view(i.stop - i.start, -1)
        return torch.add(self.of_rows(a_N)[i, None], a_N[j], out=out_IJ)

    def accumulate_grad(self, gradient_ND: Tensor, i: slice, j: slice, weight_IJ: Tensor) -> None:
        """Add sum_j W_ij z_j to the rows and, off the diagonal, sum_i W_ij z_i to the columns."""
        gradient_ND[i].addmm_(weight_IJ, self.z_ND[j])
        if i != j:
            gradient_ND[j].addmm_(weight_IJ.mT, self.z_ND[i])


class OwnTiles(Tiles):
    """This process's own rows against all others, without pairs of a row with itself: no tile has a mirror image.

    Rows of a tile are counted among the R, columns among the N.
    """

    def __init__(self, z_ND: Tensor, profile: KernelFunction, members: RowSelection, side: int) -> None:
        super().__init__(z_ND, profile, members, "excluded", side)
        assert members.places_R is not None
        self.places_R, self.places = members.places_R, members.places_R.tolist()
        self.x_RD = z_ND[self.places_R]
        self.codes_R = None if members.codes_N is None else members.codes_N[self.places_R]

    def logits(self) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        for i, j in rectangle(len(self.x_RD), len(self.z_ND), side=self.side):
            yield i, j, *self.tile(self.x_RD[i] * self.rate, j)

    def mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        # Places rise, so that the rows whose own column is in the tile follow each other.
        first = max(i.start, bisect_left(self.places, j.start))
        stop = min(i.stop, bisect_left(self.places, j.stop))
        if first < stop:
            rows = torch.arange(first - i.start, stop - i.start, device=x_IJ.device)
            x_IJ[rows, self.places_R[first:stop] - j.start] = value
        codes_N = self.members.codes_N
        if codes_N is not None and self.codes_R is not None:
            same_IJ = self.codes_R[i, None] == codes_N[j]
            x_IJ.masked_fill_(same_IJ, value)

    @property
    def rows(self) -> int:
        return len(self.x_RD)

    def of_rows(self, a_N: Tensor) -> Tensor:
        return a_N[self.places_R]

    def multiplicity(self, i: slice, j: slice) -> int:
        return 1

    def accumulate_grad(self, gradient_RD: Tensor, i: slice, j: slice, weight_IJ: Tensor) -> None:
        """Add sum_j W_ij z_j to the rows."""
        gradient_RD[i].addmm_(weight_IJ, self.z_ND[j])
