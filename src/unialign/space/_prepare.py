"""Prepare the features of a modality for its head by input normalization, kernel features or whitening.

Shapes: `N` rows of the store, `W` dimension of a modality, `b` rows of a block.
"""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign.data import row_blocks
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.space._heads import make_head
from unialign.space._kernel_basis import Blocks, KernelBasis, kernel_basis
from unialign.space._kernel_features import KernelFeatures
from unialign.space._normalizer import Standardize
from unialign.space._whitening import Whitening

if TYPE_CHECKING:
    from unialign.data import EmbeddingStore
    from unialign.space._space import Space

# Number of rows that are normalized at once.
_BLOCK_ROWS = 1024


def kernel_of(stage: nn.Module) -> KernelFeatures | None:
    last = stage[-1] if isinstance(stage, nn.Sequential) else None
    return last if isinstance(last, KernelFeatures) else None


def normalization_of(stage: nn.Module) -> nn.Module:
    return stage[0] if isinstance(stage, nn.Sequential) else stage


def normalized_blocks(norm: nn.Module, array_NW: NDArray[np.floating], rows: NDArray[np.int64]) -> Blocks:
    def read(chosen_n: NDArray[np.int64] | None = None, /) -> Iterator[Tensor]:
        for _, raw_bW in row_blocks(array_NW, rows if chosen_n is None else rows[chosen_n], _BLOCK_ROWS):
            yield normalize_rows(norm, torch.from_numpy(np.array(raw_bW)))

    return read


def normalize_rows(norm: nn.Module, x_bW: Tensor) -> Tensor:
    """Return rows after input normalization in float64; `Space.prepare` uses the dtype of the space instead."""
    # Convert via float32, since a space reads features in float32.
    normalized_bW: Tensor = norm(x_bW.float().double())
    return normalized_bW


@torch.no_grad()
def fit_stages(
    space: "Space", store: "EmbeddingStore", rows: NDArray[np.int64], names: Collection[str] | None = None
) -> None:
    """Fit the statistics of the modalities `names`; None: all."""
    for place, (name, in_dim) in enumerate(space.dims.items()):
        if names is not None and name not in names:
            continue
        stage = space.features[place]
        norm = normalization_of(stage)
        if stage is norm and not isinstance(norm, Standardize | Whitening):
            continue
        if store.dim(name) != in_dim:
            raise ShapeError(f"{name!r} has dim {store.dim(name)} in the store, but dim {in_dim} in the space")
        present_rows = rows[store.present(name)[rows]]
        if len(present_rows) == 0:
            raise DataError(f"{name!r} is absent from all {len(rows)} training rows of {store.name!r}")
        if isinstance(norm, Standardize | Whitening):
            norm.fit(store.array(name), present_rows, name=name)
        if stage is not norm:
            basis = kernel_basis(
                normalized_blocks(norm, store.array(name), present_rows),
                len(present_rows),
                name=name,
                landmarks=space.landmarks,
            )
            set_kernel_basis(space, name, basis)


def set_kernel_basis(space: "Space", name: str, basis: KernelBasis) -> None:
    """Set the kernel components; the head gets new random weights if the number of features changes."""
    place = space.modalities.index(name)
    kernel = kernel_of(space.features[place])
    if kernel is None:
        raise ConfigError(f"{name!r} has no kernel features; make the space with head='kernel'")
    before = kernel.sizes[1]
    kernel.set_basis(basis, space.regularization)
    if kernel.sizes[1] != before:
        head = make_head(space.head, kernel.sizes[1], dim=space.dim, hidden=space.hidden, dropout=space.dropout)
        space.heads[place] = head.to(kernel.weight).train(space.training)


@torch.no_grad()
def set_linear_head(space: "Space", name: str, weight_DW: Tensor) -> None:
    head = space.heads[space.modalities.index(name)]
    head.get_submodule("1").get_parameter("weight").copy_(weight_DW)
