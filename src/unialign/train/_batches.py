"""Which rows each step sees: a pure function of (seed, epoch), so that resuming needs the step alone."""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["Batches", "derived_seed"]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from anything: unlike seed + epoch, (0, 1) and (1, 0) share nothing."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Batches:
    """The order of `items` training rows over `epochs` epochs.

    Every epoch is a new permutation, cut into batches of `batch_size`. The last batch keeps what is left, unless that
    is one item, which has nothing to be compared with. `accumulate` consecutive batches of an epoch make a step; the
    last step of an epoch may have fewer. All epochs have the same number of steps.
    """

    items: int
    batch_size: int
    accumulate: int
    epochs: int
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        full, rest = divmod(self.items, self.batch_size)
        return full + (rest >= 2)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulate)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step (from 0) belongs to."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> list[Tensor]:
        """Positions among the training rows, int64, one tensor for each batch of a step (from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(self.items, self.seed, epoch)
        first = place * self.accumulate
        last = min(first + self.accumulate, self.batches_per_epoch)
        return [order[batch * self.batch_size : (batch + 1) * self.batch_size] for batch in range(first, last)]


@lru_cache(maxsize=2)
def _order(items: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
    return torch.randperm(items, generator=generator)
