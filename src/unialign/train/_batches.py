"""Choose the rows of each step as a pure function of (seed, step), so that resuming needs only the step."""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


def derived_seed(*parts: int | str) -> int:
    """A 63-bit hash; unlike a sum, it depends on the order of the parts."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Batches:
    """Every epoch uses a new permutation, split into batches of `batch_size`. The last batch is dropped if it has a
    single item, which would have no negatives. A step consists of `accumulation_steps` consecutive batches; the last
    step of an epoch may have fewer.
    """

    items: int
    batch_size: int
    accumulation_steps: int
    epochs: int
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        full, rest = divmod(self.items, self.batch_size)
        return full + (rest >= 2)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulation_steps)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def rows(self, step: int) -> list[Tensor]:
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        order = _order(self.items, self.seed, epoch)
        first = step_of_epoch * self.accumulation_steps
        last = min(first + self.accumulation_steps, self.batches_per_epoch)
        return [order[batch * self.batch_size : (batch + 1) * self.batch_size].long() for batch in range(first, last)]


# An int32 order takes 40 MB for 10 million rows; int64 gives the same permutation.
@lru_cache(maxsize=1)
def _order(items: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
    return torch.randperm(items, generator=generator, dtype=torch.int32 if items < 2**31 else torch.int64)
