"""Choose the rows of each step of a mixture as a pure function of (seed, step)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unialign._plain_text import count
from unialign.config import MixtureMode
from unialign.errors import ConfigError
from unialign.train._batches import Batches, derived_seed
from unialign.train._source_order import SourceOrder, integer_weights
from unialign.train._source_rows import SourceRows

__all__ = ["MixtureBatches"]


@dataclass(frozen=True)
class MixtureBatches(Batches):
    """Batches of rows that consist of one block per source.

    With `alternate`, each batch has the rows of one source: `batch_size`, or all rows of a smaller source. With
    `blend`, each batch has `batch_size` rows. The number of batches, or of rows, of each source differs from its share
    by less than one, after any number of batches.

    Args:
        sizes: number of training rows of each source, in the order of the rows.
        weights: source -> positive number.
        epoch_steps: number of steps of an epoch. None: as many as needed to visit each row of the source with the most
            training rows, rounded up to whole batches.
    """

    sizes: Mapping[str, int]
    weights: Mapping[str, float]
    mode: MixtureMode
    epoch_steps: int | None

    def check(self) -> None:
        """Raise ConfigError for a source that is too small for its share of a batch."""
        for name, size in self.sizes.items():
            if size < 2:
                raise ConfigError(
                    f"the source {name!r} has {count(size, 'training row')}, but a batch needs at least 2; omit it"
                )
        if self.mode == "alternate":
            return
        for name, size, window in zip(self.sizes, self.sizes.values(), self._windows, strict=True):
            share = self.batch_size * self._share(name)
            if share < 1:
                raise ConfigError(
                    f"the source {name!r} has {share:.2g} rows of a batch of {self.batch_size}; raise batch_size or "
                    f"the weight of {name!r} to at least one row, or use mode='alternate'"
                )
            if size < window:
                raise ConfigError(
                    f"the source {name!r} has {count(size, 'training row')}, but up to {window} of a batch of "
                    f"{self.batch_size}, so rows would be repeated; lower batch_size or the weight of {name!r}, or use "
                    "mode='alternate'"
                )

    @property
    def batches_per_epoch(self) -> int:
        if self.epoch_steps is not None:
            return self.epoch_steps * self.accumulation_steps
        name = max(self.sizes, key=self.sizes.__getitem__)
        size = self.sizes[name]
        rows = self.batch_size if self.mode == "blend" else min(self.batch_size, size)
        weight = self._integers[self._place(name)]
        return -(-size * self._total // (rows * weight))

    def rows(self, step: int) -> list[Tensor]:
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        first = step_of_epoch * self.accumulation_steps
        last = min(first + self.accumulation_steps, self.batches_per_epoch)
        start = epoch * self.batches_per_epoch
        return [self._batch(start + number) for number in range(first, last)]

    def _batch(self, number: int) -> Tensor:
        if self.mode == "alternate":
            source, earlier = self._order.at(number)
            rows = self._windows[source]
            return self._sources[source].take(earlier * rows, rows)
        starts, ends = self._counts(number), self._counts(number + 1)
        parts = [rows.take(start, end - start) for rows, start, end in zip(self._sources, starts, ends, strict=True)]
        rows_B = torch.cat(parts)
        # Processes embed successive parts of a batch, which should not consist of one source.
        generator = torch.Generator().manual_seed(derived_seed("blend", self.seed, number))
        return rows_B[torch.randperm(len(rows_B), generator=generator)]

    def _counts(self, batches: int) -> list[int]:
        """Return the number of rows of each source in the first batches, by the largest remainders."""
        rows = batches * self.batch_size
        exact = [rows * weight for weight in self._integers]
        counts = [share // self._total for share in exact]
        order = sorted(range(len(exact)), key=lambda source: (-(exact[source] % self._total), source))
        for source in order[: rows - sum(counts)]:
            counts[source] += 1
        return counts

    @cached_property
    def _integers(self) -> list[int]:
        return integer_weights([self.weights[name] for name in self.sizes])

    @cached_property
    def _total(self) -> int:
        return sum(self._integers)

    def _place(self, name: str) -> int:
        return list(self.sizes).index(name)

    def _share(self, name: str) -> float:
        return self._integers[self._place(name)] / self._total

    @cached_property
    def _order(self) -> SourceOrder:
        return SourceOrder(self._integers)

    @cached_property
    def _windows(self) -> list[int]:
        """Largest number of rows of each source in a batch."""
        if self.mode == "alternate":
            return [min(self.batch_size, size) for size in self.sizes.values()]
        exact = [(self.batch_size * weight, self._total) for weight in self._integers]
        # Two successive roundings up may differ from a share that is not a whole number by almost 2.
        return [rows // total if rows % total == 0 else math.ceil(rows / total) + 1 for rows, total in exact]

    @cached_property
    def _sources(self) -> list[SourceRows]:
        firsts, start = [], 0
        for size in self.sizes.values():
            firsts.append(start)
            start += size
        return [
            SourceRows(first, size, self._distinct(size, window), seed=self.seed, name=name)
            for first, (name, size), window in zip(firsts, self.sizes.items(), self._windows, strict=True)
        ]

    def _distinct(self, size: int, window: int) -> int:
        # A batch of all rows of a source is one cycle, so the order of the next cycle is free.
        return 1 if self.mode == "alternate" and size == window else window
