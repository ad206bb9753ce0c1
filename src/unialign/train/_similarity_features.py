"""Standardized features whose similarity weights the negatives of an objective.

The features are those of the store, also if the encoders are trained: similarity is measured by the initial encoders.

Shapes: `N` training rows, `B` rows of a batch, `W` dimension of a modality.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.data import EmbeddingStore
from unialign.space import Standardize

# Features up to this size are kept in memory as float32.
_IN_MEMORY_BYTES = 1 << 27


class SimilarityFeatures:
    """Features of the training rows, standardized by the mean and standard deviation of these rows."""

    def __init__(
        self, store: EmbeddingStore, rows: NDArray[np.int64], modalities: Sequence[str], device: torch.device
    ) -> None:
        self.store, self.rows, self.modalities, self.device = store, rows, modalities, device
        self.norms: dict[str, Standardize] = {}
        for name in modalities:
            self.norms[name] = norm = Standardize(store.dim(name))
            norm.fit(store.array(name), rows[store.present(name)[rows]], name=name)
        self.kept: dict[str, Tensor] = {}
        if 4 * len(rows) * sum(map(store.dim, modalities)) <= _IN_MEMORY_BYTES:
            self.kept = {name: self._read(name, rows) for name in modalities}

    def take(self, positions_B: Tensor) -> dict[str, Tensor]:
        """Return the features of rows by their positions among the training rows; absent rows may have any values."""
        if self.kept:
            return {name: x_NW[positions_B.to(self.device)] for name, x_NW in self.kept.items()}
        rows_B = self.rows[positions_B.numpy()]
        return {name: self._read(name, rows_B) for name in self.modalities}

    def _read(self, name: str, rows_B: NDArray[np.int64]) -> Tensor:
        # Memory-mapped rows are read in ascending order, since neighboring rows share pages of the file.
        order_B = np.argsort(rows_B, kind="stable")
        x_BW = np.empty((len(rows_B), self.store.dim(name)), dtype=np.float32)
        x_BW[order_B] = self.store.array(name)[rows_B[order_B]]
        standardized_BW: Tensor = self.norms[name](torch.from_numpy(x_BW))
        return standardized_BW.to(self.device)
