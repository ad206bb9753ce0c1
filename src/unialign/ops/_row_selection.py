"""Select the rows of pairwise reductions: present rows, sorted so that same-id rows are adjacent, and local rows.

Shapes: `B` rows of the batch, `N` selected rows, `R` selected rows of this process.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unialign.distributed import Shard

__all__ = ["RowSelection", "SelfPairs", "ShardLayouts", "select_rows", "shard_layout"]

# Whether a sum over pairs includes self pairs.
SelfPairs = Literal["included", "excluded"]


@dataclass(frozen=True, eq=False)
class RowSelection:
    """N selected rows, in the order used by the reductions.

    Attributes:
        size: N.
        items: B.
        index_N: positions in the batch; None: all B rows in their order.
        codes_N: int32, ascending, equal for equal ids; None: all ids differ. Same-id rows are adjacent, so a tile
            needs a mask only where the codes of its rows and columns overlap.
        local_R: positions among the N of the rows of this process, ascending; None: all rows.
        shard: layout of the batch across processes; None: one process holds the whole batch.
    """

    size: int
    items: int
    index_N: Tensor | None = None
    codes_N: Tensor | None = None
    local_R: Tensor | None = None
    shard: Shard | None = None

    def take(self, x_B: Tensor) -> Tensor:
        """Return the selected rows (N, ...) of a (B, ...) tensor; the same tensor if all rows are selected in order."""
        return x_B if self.index_N is None else x_B[self.index_N]

    def others(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return (N,) |J_i|, the number of selected rows with another id."""
        if self.codes_N is None:
            return torch.full((self.size,), float(self.size - 1), dtype=dtype, device=device)
        return (self.size - torch.bincount(self.codes_N)[self.codes_N.long()]).to(dtype)

    def same_id(self, i: slice, j: slice) -> Tensor | None:
        """Return the mask of same-id pairs in a tile, self pairs included; None if no id repeats."""
        codes_N = self.codes_N
        if codes_N is None or codes_N[j.start] > codes_N[i.stop - 1] or codes_N[i.start] > codes_N[j.stop - 1]:
            return None
        return codes_N[i, None] == codes_N[j]

    def same_id_table(self, device: torch.device) -> Tensor:
        """Return the (N, N) mask of same-id pairs, for the reference implementations."""
        if self.codes_N is None:
            return torch.eye(self.size, dtype=torch.bool, device=device)
        return self.codes_N[:, None] == self.codes_N

    def gather(self, local_R: Tensor) -> Tensor:
        """Gather the (R, ...) values of each process into (N, ...), without gradient."""
        if self.shard is None or self.local_R is None:
            return local_R
        # Index by batch position, in which the rows of each process are contiguous.
        position_R = self.local_R if self.index_N is None else self.index_N[self.local_R]
        local = local_R.new_zeros(self.shard.stop - self.shard.start, *local_R.shape[1:])
        local[position_R - self.shard.start] = local_R
        return self.take(self.shard.gather_rows(local))

    def scatter(self, local_RD: Tensor, like_ND: Tensor) -> Tensor:
        """Return (N, D) with the local rows (R, D) at their positions and 0 elsewhere, in the dtype of `like_ND`."""
        if self.local_R is None:
            return local_RD.to(like_ND.dtype)
        all_ND = torch.zeros_like(like_ND)
        all_ND[self.local_R] = local_RD.to(like_ND.dtype)
        return all_ND


# Layouts of two sets of rows across processes; None: each process computes the full sum.
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
    """Return the layout across processes of the present rows only."""
    return select_rows(present_B[present_B], None, None if shard is None else shard.kept(present_B))
