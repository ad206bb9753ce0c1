"""Who takes part in a sum over pairs: present rows, equal ids side by side, and the rows this process answers for.

Shapes: `B` rows of the batch, `N` of them take part, `R` of these are this process's own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unialign.distributed import Shard

__all__ = ["RowSelection", "select_rows"]


@dataclass(frozen=True, eq=False)
class RowSelection:
    """The N rows that take part, in the order in which kernels see them.

    Attributes:
        size: N.
        items: B.
        index_N: their positions in the batch; None: all B as they stand.
        codes_N: int32, rising, equal for equal ids; None: all ids differ. Rows of one id stand side by side, so that
            a tile needs a mask only where the codes of its rows and of its columns overlap.
        places_R: places among the N of the rows that this process answers for, rising; None: all of them.
        shard: how the batch lies on the processes; None: on this one alone.
    """

    size: int
    items: int
    index_N: Tensor | None = None
    codes_N: Tensor | None = None
    places_R: Tensor | None = None
    shard: Shard | None = None

    def take(self, x_B: Tensor) -> Tensor:
        """The members' rows of a (B, ...) tensor, (N, ...); the tensor itself where all take part as they stand."""
        return x_B if self.index_N is None else x_B[self.index_N]

    def others(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(N,) |J_i|: how many members have another id."""
        if self.codes_N is None:
            return torch.full((self.size,), float(self.size - 1), dtype=dtype, device=device)
        return (self.size - torch.bincount(self.codes_N)[self.codes_N.long()]).to(dtype)

    def same_id(self, i: slice, j: slice) -> Tensor | None:
        """Mask of the pairs of one id in a tile, a row with itself among them if ids repeat; None if there are none."""
        codes_N = self.codes_N
        if codes_N is None or codes_N[j.start] > codes_N[i.stop - 1] or codes_N[i.start] > codes_N[j.stop - 1]:
            return None
        return codes_N[i, None] == codes_N[j]

    def same_id_table(self, device: torch.device) -> Tensor:
        """(N, N) the same for whole tables, which only the reference makes."""
        if self.codes_N is None:
            return torch.eye(self.size, dtype=torch.bool, device=device)
        return self.codes_N[:, None] == self.codes_N

    def gather(self, own_R: Tensor) -> Tensor:
        """(N, ...) values of all members from the (R, ...) of this process's own, without gradient."""
        if self.shard is None or self.places_R is None:
            return own_R
        # By position in the batch, in which processes follow each other.
        position_R = self.places_R if self.index_N is None else self.index_N[self.places_R]
        local = own_R.new_zeros(self.shard.stop - self.shard.start, *own_R.shape[1:])
        local[position_R - self.shard.start] = own_R
        return self.take(self.shard.gather_rows(local))

    def broadcast(self, own_RD: Tensor, like_ND: Tensor) -> Tensor:
        """(N, D) with the (R, D) of this process's own at their places and 0 elsewhere, in the dtype of `like_ND`."""
        if self.places_R is None:
            return own_RD.to(like_ND.dtype)
        all_ND = torch.zeros_like(like_ND)
        all_ND[self.places_R] = own_RD.to(like_ND.dtype)
        return all_ND


def select_rows(present_B: Tensor, ids_B: Tensor | None, shard: Shard | None = None) -> RowSelection:
    """The present rows, sorted by id where ids repeat."""
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
    places_R = None
    if shard is not None:
        position_N = torch.arange(size, device=present_B.device) if index_N is None else index_N
        places_R = ((position_N >= shard.start) & (position_N < shard.stop)).nonzero().flatten()
    return RowSelection(size, items, index_N, codes_N, places_R, shard)
