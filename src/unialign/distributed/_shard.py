"""How the rows of one batch lie on several processes.

Shapes: `n` rows of this process, `B` rows of all.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Shard"]


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

    def gather_rows(self, own_n: Tensor) -> Tensor:
        """(B, ...) of the (n, ...) of every process, in one collective and without gradient."""
        longest = max(self.sizes)
        padded = own_n.new_zeros((longest, *own_n.shape[1:]))
        padded[: len(own_n)] = own_n.detach()
        parts = [torch.empty_like(padded) for _ in self.sizes]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])
