"""Select the present and local rows of pairwise reductions, sorted so that rows with the same id are adjacent.

Shapes: `B` rows of the batch, `N` selected rows, `R` selected rows of this process, `I` rows and `J` columns of a tile.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.distributed import Shard

# Whether a sum over pairs includes self pairs.
SelfPairs = Literal["included", "excluded"]


@dataclass(frozen=True, eq=False)
class RowSelection:
    """N selected rows, in the order used by the reductions.

    Attributes:
        size: N.
        index_N: positions in the batch; None for all B rows in batch order.
        codes_N: int32 codes, ascending, equal for equal ids; None if all ids differ. Same-id rows are adjacent, so a
            tile needs a mask only if the codes of its rows and columns overlap.
        local_R: ascending positions of this process's rows among the N selected rows; None for all rows.
        shard: layout of the batch across processes; None if one process has the whole batch.
    """

    size: int
    index_N: Tensor | None = None
    codes_N: Tensor | None = None
    local_R: Tensor | None = None
    shard: Shard | None = None

    def take(self, x_B: Tensor) -> Tensor:
        return x_B if self.index_N is None else x_B[self.index_N]

    def local(self, x_N: Tensor) -> Tensor:
        return x_N if self.local_R is None else x_N[self.local_R]

    def unsharded(self) -> "RowSelection":
        """Selection for a sum that every process computes in full."""
        return replace(self, local_R=None, shard=None)

    def others(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """|J_i|, the number of selected rows with an id other than that of row i."""
        if self.codes_N is None:
            return torch.full((self.size,), float(self.size - 1), dtype=dtype, device=device)
        return (self.size - torch.bincount(self.codes_N)[self.codes_N.long()]).to(dtype)

    def mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float, *, self_pairs: SelfPairs = "excluded") -> None:
        """Set pairs of local rows `i` and selected rows `j` with the same id, and excluded self pairs, to `value`."""
        same_IJ = self._same_id(i, j)
        if self_pairs == "excluded":
            self.mask_self_pairs_(x_IJ, i, j, value)
        elif same_IJ is not None:
            self.mask_self_pairs_(same_IJ, i, j, False)
        if same_IJ is not None:
            x_IJ.masked_fill_(same_IJ, value)

    def masked_table(self, device: torch.device, *, self_pairs: SelfPairs = "excluded") -> Tensor:
        diagonal_NN = torch.eye(self.size, dtype=torch.bool, device=device)
        same_NN = diagonal_NN if self.codes_N is None else self.codes_N[:, None] == self.codes_N
        return same_NN if self_pairs == "excluded" else same_NN & ~diagonal_NN

    def gather(self, local_R: Tensor) -> Tensor:
        """(R, ...) -> (N, ...), without gradient."""
        if self.shard is None or self.local_R is None:
            return local_R
        # Index by position in the batch, where the rows of each process are contiguous.
        position_R = self.local_R if self.index_N is None else self.index_N[self.local_R]
        local = local_R.new_zeros(self.shard.stop - self.shard.start, *local_R.shape[1:])
        local[position_R - self.shard.start] = local_R
        return self.take(self.shard.gather_rows(local))

    def scatter(self, local_RD: Tensor, like_ND: Tensor) -> Tensor:
        """(N, D) with the local rows at their positions and 0 elsewhere."""
        if self.local_R is None:
            return local_RD.to(like_ND.dtype)
        all_ND = torch.zeros_like(like_ND)
        all_ND[self.local_R] = local_RD.to(like_ND.dtype)
        return all_ND

    def _same_id(self, i: slice, j: slice) -> Tensor | None:
        """None if the mask is empty or all ids differ."""
        if self.codes_N is None:
            return None
        row_I, column_J = self.codes_N[i if self.local_R is None else self.local_R[i]], self.codes_N[j]
        return None if column_J[0] > row_I[-1] or row_I[0] > column_J[-1] else row_I[:, None] == column_J

    def mask_self_pairs_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        if self.local_R is not None:
            x_IJ.masked_fill_(self.local_R[i, None] == torch.arange(j.start, j.stop, device=x_IJ.device), value)
        elif i == j:
            x_IJ.diagonal().fill_(value)


# Layouts of two sets of rows across processes; None if each process computes the full sum.
ShardLayouts = tuple[RowSelection, RowSelection] | None


def select_rows(present_B: Tensor, ids_B: Tensor | None = None, shard: Shard | None = None) -> RowSelection:
    """Select the present rows, sorted by id if ids repeat.

    Args:
        present_B: bool mask of the rows to select.
        ids_B: integers, or None if all items are different.
        shard: layout of the B rows across processes.
    """
    index_N = None if bool(present_B.all()) else present_B.nonzero().flatten()
    codes_N = None
    if ids_B is not None:
        ids_N = ids_B if index_N is None else ids_B[index_N]
        values, inverse_N = torch.unique(ids_N, return_inverse=True)
        if len(values) < len(ids_N):
            sorted_N, order_N = torch.sort(inverse_N, stable=True)
            codes_N = sorted_N.to(torch.int32)
            index_N = order_N if index_N is None else index_N[order_N]
    size = len(present_B) if index_N is None else len(index_N)
    local_R = None
    if shard is not None:
        position_N = torch.arange(size, device=present_B.device) if index_N is None else index_N
        local_R = ((position_N >= shard.start) & (position_N < shard.stop)).nonzero().flatten()
    return RowSelection(size, index_N, codes_N, local_R, shard)


def select_items(batch: Batch, present_B: Tensor) -> RowSelection:
    """Select the rows of a batch where the mask is True, with the ids and the process layout of the batch."""
    return select_rows(present_B, batch.ids_B, batch.shard)


def shard_layout(present_B: Tensor, shard: Shard | None) -> RowSelection:
    return select_rows(present_B[present_B], None, None if shard is None else shard.kept(present_B))
