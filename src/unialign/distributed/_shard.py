"""How the rows of one batch lie on several processes, and how they come together.

Shapes: `n` rows of this process, `B` rows of all, `M` modalities, `D` width, `P` processes.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.distributed._collectives import gather_tensors
from unialign.distributed._failures import BATCH, naming_failures

__all__ = ["Shard", "gather_with_own_gradient"]

_NO_SECOND_DERIVATIVE = (
    "a batch that lies on several processes has no second derivative; for one, bring the whole batch to one process "
    "and call the loss with `group=None`"
)


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows of a batch follow each other process by process.

    Attributes:
        sizes: rows of each process; some may have none.
        rank: this process's number in the group.
        group: the process group; None is the default one.
    """

    sizes: tuple[int, ...]
    rank: int
    group: Any = None

    @property
    def processes(self) -> int:
        return len(self.sizes)

    @property
    def start(self) -> int:
        """Position of this process's first row."""
        return sum(self.sizes[: self.rank])

    @property
    def stop(self) -> int:
        """Position after its last row."""
        return self.start + self.sizes[self.rank]

    @property
    def total(self) -> int:
        """B."""
        return sum(self.sizes)

    def kept(self, present_B: Tensor) -> "Shard":
        """How the rows that are present lie on the processes."""
        stops = list(accumulate(self.sizes))
        counts = [present_B[stop - size : stop].sum() for stop, size in zip(stops, self.sizes, strict=True)]
        return Shard(tuple(torch.stack(counts).tolist()), self.rank, self.group)

    def gather_rows(self, own_n: Tensor, dim: int = 0) -> Tensor:
        """The rows of every process along `dim`, (B, ...) of (n, ...), in one collective and without gradient.

        Every process brings the same dtype, bool included, and the same shape but for `dim`.

        Raises:
            DistributedError: another process ended or never came.
        """
        own_n = own_n.detach()
        longest = max(self.sizes)
        if longest == 0:
            return own_n.clone()
        padded = _pad(own_n, longest, dim)
        # As bytes: not every backend knows truth values.
        sent = padded.view(torch.uint8) if padded.dtype == torch.bool else padded
        parts = [torch.empty_like(sent) for _ in self.sizes]
        with naming_failures(self.group, BATCH):
            dist.all_gather(parts, sent, group=self.group)
        rows = torch.cat([part.narrow(dim, 0, size) for part, size in zip(parts, self.sizes, strict=True)], dim)
        return rows.view(torch.bool) if padded.dtype == torch.bool else rows

    def gather_numbers(self, own_K: Tensor) -> Tensor:
        """(P, K) of the (K,) numbers of each process, in one collective and without gradient.

        Every process brings the same dtype and K; no bool, which not every backend knows.

        Raises:
            DistributedError: another process ended or never came.
        """
        return gather_tensors(own_K, self.group, doing=BATCH)

    def sum(self, own: Tensor) -> Tensor:
        """The sum over the processes of a tensor that each has, in one collective and without gradient.

        Every process brings the same shape and dtype. The sum is taken in that dtype: integers wrap around, float16
        overflows at 65,504, and bool is refused by some backends; convert before.

        Raises:
            DistributedError: another process ended or never came.
        """
        total = own.detach().clone()
        with naming_failures(self.group, BATCH):
            dist.all_reduce(total, group=self.group)
        return total


def gather_with_own_gradient(own_MnD: Tensor, shard: Shard) -> Tensor:
    """(M, B, D) of the (M, n, D) of every process, in one collective.

    Every process computes the same loss of all rows, so the gradient of its own rows is complete without any
    communication. It comes back times the number of processes, since the engines (DDP, FSDP) average the gradients of
    the parameters over them: the mean is then the gradient of the whole batch.
    """
    gathered: Tensor = _Gather.apply(own_MnD, shard)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_MnD: Tensor, shard: Shard) -> Tensor:
        ctx.save_for_backward(own_MnD)
        ctx.shard = shard
        return shard.gather_rows(own_MnD, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient_MBD: Tensor) -> tuple[Tensor, None]:
        shard: Shard = ctx.shard
        with torch.no_grad():
            own_MnD = gradient_MBD[:, shard.start : shard.stop] * shard.processes
        # By the rows, a second derivative would lack what other processes' rows contribute.
        return first_order_only(own_MnD, *ctx.saved_tensors, message=_NO_SECOND_DERIVATIVE), None


def _pad(own_n: Tensor, longest: int, dim: int) -> Tensor:
    missing = longest - own_n.shape[dim]
    if missing == 0:
        return own_n.contiguous()
    shape = list(own_n.shape)
    shape[dim] = missing
    return torch.cat([own_n, own_n.new_zeros(shape)], dim)
