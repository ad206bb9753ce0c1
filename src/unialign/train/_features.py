"""Features after input normalization, kept in memory or read from the store; both give the same batches.

Shapes: `N` training rows, `B` rows of a batch, `W` dimension of a modality.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.data import EmbeddingStore, RowReader, row_blocks
from unialign.io import MappedPages
from unialign.space import Space

# Maximum size in bytes of the rows that are read ahead. It is reduced, by at most three quarters, so that these rows,
# the row numbers and the order of an epoch (12 bytes per training row) together take at most 192 MiB.
_STAGE_BYTES = 1 << 27
_SHARED_BYTES, _ORDER_BYTES = 3 << 26, 12
# Size in bytes of the blocks of rows that are normalized at once.
_BLOCK_BYTES = 1 << 27


class Features(Protocol):
    """Features are indexed by position among the training rows."""

    def stage_size(self) -> int:
        """Number of rows to read ahead; 0 if none need to be read."""
        ...

    def stage(self, positions: Tensor) -> None:
        """Read rows into a buffer for later calls of `take`."""
        ...

    def take(self, positions_B: Tensor, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`present` lists the modalities with absent rows."""
        ...


class LoadedFeatures:
    def __init__(
        self,
        store: EmbeddingStore,
        space: Space,
        modalities: Sequence[str],
        rows_N: NDArray[np.int64],
        masks: Mapping[str, NDArray[np.bool_]],
        device: torch.device,
    ) -> None:
        self._device = device
        self._prepared: dict[str, Tensor] = {}
        for name in modalities:
            parts = []
            # Small data form a single block, since the rounding of whitening depends on the number of rows.
            widest = max(store.dim(name), *(space.kernel_sizes or {}).get(name, (0,)))
            for part, raw_bW in row_blocks(store.array(name), rows_N, max(1, _BLOCK_BYTES // (4 * widest))):
                mask_b = torch.from_numpy(masks[name][part]).to(device) if name in masks else None
                parts.append(_prepare(space, name, torch.from_numpy(np.array(raw_bW)).to(device), mask_b))
            self._prepared[name] = parts[0] if len(parts) == 1 else torch.cat(parts)

    def stage_size(self) -> int:
        return 0

    def stage(self, positions: Tensor) -> None:
        pass

    def take(self, positions_B: Tensor, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        positions_B = positions_B.to(self._device)
        return {name: x_NW.index_select(0, positions_B) for name, x_NW in self._prepared.items()}


class StreamedFeatures:
    """The rows of the next steps are read in ascending order, since neighboring rows share pages of the file."""

    def __init__(
        self,
        store: EmbeddingStore,
        space: Space,
        modalities: Sequence[str],
        rows_N: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self._space, self._rows_N, self._device = space, rows_N, device
        arrays = {name: store.array(name) for name in modalities}
        pages = MappedPages(arrays.values())
        self._readers = {name: RowReader(array_NW, pages=pages) for name, array_NW in arrays.items()}
        most = min(_STAGE_BYTES, max(_STAGE_BYTES // 4, _SHARED_BYTES - _ORDER_BYTES * len(rows_N)))
        self._size = min(most // sum(array_NW[:1].nbytes for array_NW in arrays.values()), len(rows_N))
        empty = {name: np.empty((self._size, x.shape[1]), x.dtype) for name, x in arrays.items()}
        self._buffers = {name: torch.from_numpy(buffer) for name, buffer in empty.items()}
        self._staged = torch.empty(0, dtype=torch.int64)

    def stage_size(self) -> int:
        return self._size

    def stage(self, positions: Tensor) -> None:
        if len(positions) > self._size:
            # `take` reads the rows of a step that is larger than the buffer.
            return
        self._staged = positions.sort().values
        rows = self._rows_N[self._staged.numpy()]
        for name, reader in self._readers.items():
            reader.read(rows, out=self._buffers[name].numpy()[: len(rows)])

    def take(self, positions_B: Tensor, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        places_B = self._find(positions_B)
        features = {}
        for name, reader in self._readers.items():
            if places_B is None:
                raw_BW = torch.from_numpy(reader.read(self._rows_N[positions_B.numpy()]))
            else:
                raw_BW = self._buffers[name].index_select(0, places_B)
            features[name] = _prepare(self._space, name, raw_BW.to(self._device), present.get(name))
        return features

    def _find(self, positions_B: Tensor) -> Tensor | None:
        if len(self._staged) == 0:
            return None
        places_B = torch.searchsorted(self._staged, positions_B).clamp_(max=len(self._staged) - 1)
        return places_B if torch.equal(self._staged[places_B], positions_B) else None


@torch.no_grad()
def _prepare(space: Space, name: str, raw_BW: Tensor, mask_B: Tensor | None) -> Tensor:
    # Numbers beyond float32 become infinite, but such rows have already been rejected.
    return space.prepare(name, raw_BW.float(), present=mask_B)
