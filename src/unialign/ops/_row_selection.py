"""Select the rows of pairwise reductions: present rows, rows of one id next to each other, and the local rows.

Shapes: `B` rows of the batch, `N` selected rows, `R` selected rows of this process.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unialign.distributed import Shard

__all__ = ["RowSelection", "SelfPairs", "ShardLayouts", "select_rows", "shard_layout"]

# Whether a sum over pairs includes those of a row with itself.
SelfPairs = Literal["included", "excluded"]


@dataclass(frozen=True, eq=False)
class RowSelection:
    """The N selected rows, in the order in which the reductions read them.

    Attributes:
        size: N.
        items: B.
        index_N: positions in the batch; None: all B rows in their order.
        codes_N: int32, ascending, equal for equal ids; None: all ids differ. Rows of one id are next to each other, so
            that a tile needs a mask only where the codes of its rows and of its columns overlap.
        local_R: positions among the N of the rows of this process, ascending; None: all rows.
        shard: layout of the batch on the processes; None: one process has the whole batch.
    """

    size: int
    items: int
    index_N: Tensor | None = None
    codes_N: Tensor | None = None
    local_R: Tensor | None = None
    shard: Shard | None = None

    def take(self, x_B: Tensor) -> Tensor:
        """Return the selected rows (N, ...) of a (B, ...) tensor; the tensor itself if that is all rows in order."""
        return x_B if self.index_N is None else x_B[self.index_N]

    def others(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return (N,) |J_i|, the number of selected rows with another id."""
        if self.codes_N is None:
            return torch.full((self.size,), float(self.size - 1), dtype=dtype, device=device)
        return (self.size - torch.bincount(self.codes_N)[self.codes_N.long()]).to(dtype)

    def same_id(self, i: slice, j: slice) -> Tensor | None:
        """Mask the pairs of one id in a tile, self pairs included; None if ids do not repeat in it."""
        codes_N = self.codes_N
        if codes_N is None or codes_N[j.start] > codes_N[i.stop - 1] or codes_N[i.start] > codes_N[j.stop - 1]:
            return None
        return codes_N[i, None] == codes_N[j]

    def same_id_table(self, device: torch.device) -> Tensor:
        """Mask the pairs of one id in the whole (N, N) matrix, for the reference implementations."""
        if self.codes_N is None:
            return torch.eye(self.size, dtype=torch.bool, device=device)
        return self.codes_N[:, None] == self.codes_N

    def gather(self, local_R: Tensor) -> Tensor:
        """Return (N, ...) values of all rows from the (R, ...) of each process, without gradient."""
        if self.shard is None or self.local_R is None:
            return local_R
        # By position in the batch, where the rows of the processes follow each other.
        position_R = self.local_R if self.index_N is None else self.index_N[self.local_R]
        local = local_R.new_zeros(self.shard.stop - self.shard.start, *local_R.shape[1:])
        local[position_R - self.shard.start] = local_R
        return self.take(self.shard.gather_rows(local))

    def scatter(self, local_RD: Tensor, like_ND: Tensor) -> Tensor:
        """Return (N, D) with the local rows (R, D) in their positions and 0 elsewhere, in the dtype of `like_ND`."""
        if self.local_R is None:
            return local_RD.to(like_ND.dtype)
        all_ND = torch.zeros_like(like_ND)
        all_ND[self.local_R] = local_RD.to(like_ND.dtype)
        return all_ND


# Layouts of two sets of rows on the processes; None: each process computes the whole sum.
ShardLayouts = tuple[RowSelection, RowSelection] | None


def select_rows(present_B: Tensor, ids_B: Tensor | None, shard: Shard | None = None) -> RowSelection:
    """Select the present rows, sorted by id where ids repeat."""
    items = len(present_B)
    index_N = None if bool(present_B.all()) else present_B.nonzero().flatten()
    codes_N = None
    if ids_B is not None:
        ids_N = ids_B if index_N is None else ids_B[index_N]
        values, codes_N = torch.unique(ids_N, return_inverse=True)
        if len(values) == len(ids_N):
            codes_N = None
        else:
            codes_N, order_N = torch.sort(codes_N, stable=True)
            codes_N = codes_N.to(torch.int32)
            index_N = order_N if index_N is None else index_N[order_N]
    size = items if index_N is None else len(index_N)
    local_R = None
    if shard is not None:
        position_N = torch.arange(size, device=present_B.device) if index_N is None else index_N
        local_R = ((position_N >= shard.start) & (position_N < shard.stop)).nonzero().flatten()
    return RowSelection(size, items, index_N, codes_N, local_R, shard)


def shard_layout(present_B: Tensor, shard: Shard | None) -> RowSelection:
    """Return the layout on the processes of the present rows alone, counted without the absent ones."""
    return select_rows(present_B[present_B], None, None if shard is None else shard.kept(present_B))
