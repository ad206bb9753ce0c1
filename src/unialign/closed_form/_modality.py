"""Normalized rows of a modality and their principal components, for spaces in closed form.

Shapes: `n` rows of the modality, `N` items, `W` dimension, `r` components, `b` rows of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign.data import EmbeddingStore
from unialign.errors import DataError, NonFiniteError
from unialign.space import Blocks, Standardize, kernel_basis, leading_eigenvectors, make_input_norm, normalized_blocks

# Columns with a smaller standard deviation, relative to their mean, vary only by the last bits of float32. Rows then
# often equal the mean, and a linear head maps the mean to zero.
_ROUNDING = 2.5e-7


class Basis(Protocol):
    """Principal components of the rows X = V diag(s) A' of a modality, or of their kernel matrix V diag(s^2) V'."""

    @property
    def spectrum_r(self) -> Tensor:
        """Squared singular values s^2, descending."""
        ...

    @property
    def rows(self) -> int: ...

    def vectors(self, x_bW: Tensor) -> Tensor:
        """Return the entries (b, r) of the left singular vectors."""
        ...

    def ridge_weights(self, regularization: float) -> Tensor:
        """Return s^2 / (s^2 + regularization n), (r,)."""
        ...


@dataclass(frozen=True)
class LinearBasis:
    """`axes_Wr` are the right singular vectors divided by the singular values."""

    axes_Wr: Tensor
    spectrum_r: Tensor
    rows: int

    def vectors(self, x_bW: Tensor) -> Tensor:
        return x_bW @ self.axes_Wr

    def ridge_weights(self, regularization: float) -> Tensor:
        return self.spectrum_r / (self.spectrum_r + regularization * self.rows)


@dataclass(frozen=True)
class ModalityRows:
    name: str
    norm: nn.Module
    positions_n: NDArray[np.int64]
    blocks: Blocks


@dataclass(frozen=True)
class Modality(ModalityRows):
    basis: Basis


@torch.no_grad()
def read_modality(store: EmbeddingStore, name: str, rows_N: NDArray[np.int64], *, input_norm: str) -> ModalityRows:
    positions_n = np.flatnonzero(store.present(name)[rows_N])
    rows_n, array = rows_N[positions_n], store.array(name)
    norm = make_input_norm(input_norm, store.dim(name))
    if isinstance(norm, Standardize):
        norm.fit(array, rows_n, name=name)
    blocks = normalized_blocks(norm, array, rows_n)
    start, square_W = 0, torch.zeros(store.dim(name), dtype=torch.float64)
    for x_bW in blocks():
        check_finite(x_bW, rows_n[start : start + len(x_bW)], name)
        start += len(x_bW)
        square_W += x_bW.square().sum(0)
    if isinstance(norm, Standardize):
        deviation_W = (square_W / len(rows_n)).sqrt() * norm.std
        if bool((deviation_W <= _ROUNDING * norm.mean.abs()).all()):
            raise DataError(
                f"all {len(rows_n)} training rows of {name!r} are equal, except for rounding in float32, so they "
                f"predict nothing; omit {name!r}"
            )
    return ModalityRows(name, norm, positions_n, blocks)


def with_basis(modality: ModalityRows, in_dim: int, *, kernel: str, landmarks: int | str, seed: int) -> Modality:
    name, rows = modality.name, len(modality.positions_n)
    basis: Basis
    if kernel == "rbf":
        basis = kernel_basis(modality.blocks, rows, name=name, landmarks=landmarks, seed=seed)
    else:
        basis = linear_basis(modality.blocks, rows, in_dim, name=name)
    return Modality(name, modality.norm, modality.positions_n, modality.blocks, basis)


def linear_basis(blocks: Blocks, rows: int, in_dim: int, *, name: str) -> LinearBasis:
    """Decompose X'X or XX', whichever is smaller."""
    if rows < in_dim:
        x_nW = torch.cat(list(blocks()))
        spectrum_r, vectors_nr = leading_eigenvectors(x_nW @ x_nW.mT)
        axes_Wr = x_nW.mT @ (vectors_nr / spectrum_r)
    else:
        product_WW = torch.zeros(in_dim, in_dim, dtype=torch.float64)
        for x_bW in blocks():
            product_WW.addmm_(x_bW.mT, x_bW)
        spectrum_r, right_Wr = leading_eigenvectors(product_WW)
        axes_Wr = right_Wr / spectrum_r.sqrt()
    if len(spectrum_r) == 0:
        raise DataError(f"all {rows} training rows of {name!r} are equal, so they predict nothing; omit {name!r}")
    return LinearBasis(axes_Wr, spectrum_r, rows)


def coordinates(modality: Modality) -> Tensor:
    return torch.cat([modality.basis.vectors(x_bW) for x_bW in modality.blocks()])


def counts_of(modalities: Sequence[Modality], items: int) -> Tensor:
    counts_N = torch.zeros(items, dtype=torch.float64)
    for modality in modalities:
        counts_N[torch.from_numpy(modality.positions_n)] += 1
    return counts_N


def check_finite(x_bW: Tensor, rows_b: NDArray[np.int64], name: str) -> None:
    finite_b = torch.isfinite(x_bW).all(1)
    if not bool(finite_b.all()):
        raise NonFiniteError(
            f"{name!r} is not finite in float32, or not after standardization, for example in row "
            f"{int(rows_b[int((~finite_b).nonzero()[0])])} of the store; mark items without {name!r} as absent"
        )
