"""Order in which the rows of one source of a mixture are visited, as a pure function of the seed.

Shapes: `n` rows of the source, `w` rows of its largest share of a batch.
"""

import heapq

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.train._batches import derived_seed

__all__ = ["SourceRows"]

Rows = NDArray[np.int64]

# Distance between the cycles whose ends are kept, so that earlier rows can be found again.
_KEPT_EVERY = 64
_KEPT_LAST = 4


class SourceRows:
    """Endless sequence of the rows of a source. It consists of cycles, each a new permutation of all n rows, in which
    any `window` <= n consecutive rows differ, also across the end of a cycle: a row that occurred twice in a batch
    would be a negative of itself.
    """

    def __init__(self, first: int, size: int, window: int, *, seed: int, name: str) -> None:
        self._first, self._size, self._window, self._seed, self._name = first, size, window, seed, name
        self._cycle, self._order = -1, np.empty(0, np.int64)
        self._ends: dict[int, Rows] = {}

    def take(self, start: int, count: int) -> Tensor:
        """Return the rows at the places `start`, ..., `start + count - 1` of the sequence."""
        cycle, place = divmod(start, self._size)
        found, remaining = [], count
        while remaining:
            found.append(self._cycle_order(cycle)[place : place + remaining].astype(np.int64))
            remaining -= len(found[-1])
            cycle, place = cycle + 1, 0
        return torch.from_numpy(np.concatenate(found or [np.empty(0, np.int64)]) + self._first)

    def _cycle_order(self, cycle: int) -> Rows:
        if cycle != self._cycle:
            end = self._end(cycle - 1)
            self._forget()  # so that only one order is in memory
            self._order, self._cycle = self._after(cycle, end), cycle
            self._keep_end(cycle, self._order)
        return self._order

    def _forget(self) -> None:
        self._cycle, self._order = -1, np.empty(0, np.int64)

    def _end(self, cycle: int) -> Rows | None:
        """Return the last w - 1 rows of a cycle, or None before the first."""
        if cycle < 0 or self._window < 2:
            return None
        if cycle in self._ends:
            return self._ends[cycle]
        if cycle == self._cycle:
            return self._keep_end(cycle, self._order)
        self._forget()
        if self._size >= 4 * self._window:
            # Only the first 2 w rows of a permutation are moved, so its end does not depend on earlier cycles.
            return self._keep_end(cycle, self._permutation(cycle))
        known = max((known for known in self._ends if known < cycle), default=-1)
        end = self._ends.get(known)
        for number in range(known + 1, cycle + 1):
            end = self._keep_end(number, self._after(number, end))
        return end

    def _keep_end(self, cycle: int, order: Rows) -> Rows:
        end = self._ends[cycle] = order[self._size - self._window + 1 :].copy()
        for number in [n for n in self._ends if n % _KEPT_EVERY and not cycle - _KEPT_LAST < n <= cycle]:
            del self._ends[number]
        return end

    def _after(self, cycle: int, end: Rows | None) -> Rows:
        order = self._permutation(cycle)
        if end is not None:
            size = min(self._size, 2 * self._window)
            order[:size] = _separated(order[:size].tolist(), end.tolist())
        return order

    def _permutation(self, cycle: int) -> Rows:
        generator = torch.Generator().manual_seed(derived_seed("source", self._seed, self._name, cycle))
        dtype = torch.int32 if self._size < 2**31 else torch.int64
        order: Rows = torch.randperm(self._size, generator=generator, dtype=dtype).numpy()
        return order


def _separated(order: list[int], end: list[int]) -> list[int]:
    """Move rows back so that the k-th row of `end`, the w - 1 rows before, does not occur at the places 0, ..., k; the
    rows otherwise keep their order.
    """
    place = {row: number for number, row in enumerate(order)}
    last = set(end)
    free = iter([row for row in order if row not in last])
    following = next(free, None)
    waiting: list[int] = []  # places in `order` of the rows of `end` that may follow again
    chosen = []
    for number in range(len(end)):
        if number and end[number - 1] in place:
            heapq.heappush(waiting, place[end[number - 1]])
        if following is None or (waiting and waiting[0] < place[following]):
            chosen.append(order[heapq.heappop(waiting)])
        else:
            chosen.append(following)
            following = next(free, None)
    taken = set(chosen)
    return chosen + [row for row in order if row not in taken]
