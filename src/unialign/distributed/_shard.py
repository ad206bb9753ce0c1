"""Layout of a batch across processes.

Shapes: `n` rows of this process, `B` rows of all processes, `M` modalities, `D` dimension, `P` processes.
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

_NO_SECOND_DERIVATIVE = (
    "a loss of a batch on several processes has no second derivative; to compute it, gather the whole batch on one "
    "process and call the loss with `group=None`"
)


@dataclass(frozen=True, eq=False)
class Shard:
    """Row ranges of the processes in a batch. Gathered and summed tensors carry no gradient."""

    sizes: tuple[int, ...]
    rank: int
    group: Any = None

    @property
    def processes(self) -> int:
        return len(self.sizes)

    @property
    def start(self) -> int:
        return sum(self.sizes[: self.rank])

    @property
    def stop(self) -> int:
        return self.start + self.sizes[self.rank]

    def kept(self, present_B: Tensor) -> "Shard":
        stops = list(accumulate(self.sizes))
        counts = [present_B[stop - size : stop].sum() for stop, size in zip(stops, self.sizes, strict=True)]
        return Shard(tuple(torch.stack(counts).tolist()), self.rank, self.group)

    def gather_rows(self, own_n: Tensor, dim: int = 0) -> Tensor:
        """Gather (n, ...) rows into (B, ...), in one collective."""
        own_n = own_n.detach()
        longest = max(self.sizes)
        if longest == 0:
            return own_n.clone()
        padded = own_n.new_zeros(*own_n.shape[:dim], longest, *own_n.shape[dim + 1 :])
        padded.narrow(dim, 0, own_n.shape[dim]).copy_(own_n)
        # Send bytes, since not every backend supports bool.
        sent = padded.view(torch.uint8) if padded.dtype == torch.bool else padded
        parts = [torch.empty_like(sent) for _ in self.sizes]
        with naming_failures(self.group, BATCH):
            dist.all_gather(parts, sent, group=self.group)
        rows = torch.cat([part.narrow(dim, 0, size) for part, size in zip(parts, self.sizes, strict=True)], dim)
        return rows.view(torch.bool) if padded.dtype == torch.bool else rows

    def gather_numbers(self, own_K: Tensor) -> Tensor:
        """Gather (K,) numbers into (P, K), in one collective."""
        return gather_tensors(own_K, self.group, doing=BATCH)

    def sum(self, own: Tensor) -> Tensor:
        total = own.detach().clone()
        with naming_failures(self.group, BATCH):
            dist.all_reduce(total, group=self.group)
        return total


def gather_with_own_gradient(own_MnD: Tensor, shard: Shard) -> Tensor:
    """Gather (M, n, D) rows into (M, B, D), in one collective, with gradient for the local rows.

    Every process computes the same loss over all rows, so the gradient of its local rows is complete without
    communication. It is multiplied by the number of processes, since DDP and FSDP average parameter gradients over
    processes.
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
        # A second derivative would lack the contributions of rows on other processes.
        return first_order_only(own_MnD, *ctx.saved_tensors, message=_NO_SECOND_DERIVATIVE), None
