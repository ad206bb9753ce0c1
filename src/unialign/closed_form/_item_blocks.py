"""Read the rows of several modalities for the same items, block by block.

Shapes: `N` items, `n` rows of a modality, `W` dimension, `b` items of a block.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unialign.closed_form._modality import ModalityRows

_BLOCK_ITEMS = 1024


def item_blocks(modalities: Sequence[ModalityRows], items: int) -> Iterator[tuple[slice, list[tuple[Tensor, Tensor]]]]:
    """Yield a slice of the items with, per modality, the positions (n,) of the present items in the block and their
    normalized rows (n, W) in float64.
    """
    queues = [_RowQueue(modality) for modality in modalities]
    for start in range(0, items, _BLOCK_ITEMS):
        stop = min(start + _BLOCK_ITEMS, items)
        yield slice(start, stop), [queue.take(start, stop) for queue in queues]


class _RowQueue:
    def __init__(self, modality: ModalityRows) -> None:
        self._positions_n, self._blocks = torch.from_numpy(modality.positions_n), modality.blocks()
        self._ready_bW: Tensor | None = None

    def take(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        first, last = torch.searchsorted(self._positions_n, torch.tensor([start, stop])).tolist()
        while self._ready_bW is None or len(self._ready_bW) < last - first:
            block_bW = next(self._blocks)
            self._ready_bW = block_bW if self._ready_bW is None else torch.cat([self._ready_bW, block_bW])
        rows_nW, self._ready_bW = self._ready_bW[: last - first], self._ready_bW[last - first :]
        return self._positions_n[first:last] - start, rows_nW
