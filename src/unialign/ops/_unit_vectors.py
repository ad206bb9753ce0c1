"""Validate array-likes and convert them to unit rows in float64, for metrics, searches and measurements.

Shapes: `N` rows, `n` requested rows, `D` dimension.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._invalid_rows import first_bad_row
from unialign.batch import as_dense
from unialign.errors import NonFiniteError, ShapeError
from unialign.ops._tiles import row_tiles

# In a matrix product, scores of identical gallery rows may differ by about 1e-16, depending on their position in the
# tile, while scores of distinct float32 rows differ by 1e-8. Any tolerance between these values identifies ties.
TIE_TOLERANCE = 1e-12

# Range of norms with squares in float32's range; entries with squares that underflow are negligible.
_PLAIN = (1e-12, 1e12)


def unit_rows(x: Any, name: str) -> Tensor:
    """Validate (N, D) rows and normalize them to unit length in float64, in which the rounding error of a product
    (about 1e-16) is far below the differences between float32 scores (about 1e-8), so ties are recognized.
    """
    raw_ND = _floating_rows(x, name).to(torch.float64)
    _check(raw_ND, ~_usable(raw_ND), name)
    return _unit(raw_ND)


class UnitRows:
    """Unit rows that are computed on access, to avoid a float64 copy of a large or memory-mapped array."""

    def __init__(self, x: Any, name: str, *, device: torch.device | None = None) -> None:
        self._raw_ND = _floating_rows(x, name).detach()
        self.device = self._raw_ND.device if device is None else device
        bad_N = torch.zeros(len(self._raw_ND), dtype=torch.bool)
        self._plain = self._raw_ND.dtype != torch.float64
        for rows in row_tiles(*self._raw_ND.shape):
            raw_nD = self._raw_ND[rows]
            norm_n = torch.linalg.vector_norm(raw_nD.float() if self._plain else raw_nD, dim=1)
            # Squares of norms in this range neither overflow nor lose precision; NaN and infinity fail the comparison.
            if not bool(((norm_n > _PLAIN[0]) & (norm_n < _PLAIN[1])).all()):
                self._plain = False
                bad_N[rows] = ~_usable(raw_nD.double()).cpu()
        _check(self._raw_ND, bad_N, name)

    def __len__(self) -> int:
        return len(self._raw_ND)

    @property
    def dim(self) -> int:
        return self._raw_ND.shape[1]

    def exact(self, rows: slice | Tensor) -> Tensor:
        return _unit(self._rows(rows).double())

    def rounded(self, rows: slice | Tensor, out_nD: Tensor) -> Tensor:
        """Each entry is within two roundings of the exact value."""
        if out_nD.dtype == torch.float64 or not self._plain:
            return out_nD.copy_(self.exact(rows))
        raw_nD = self._rows(rows).to(out_nD.dtype)
        norm_n1 = torch.linalg.vector_norm(raw_nD, dim=1, keepdim=True, dtype=torch.float64)
        return torch.mul(raw_nD, norm_n1.reciprocal_().to(out_nD.dtype), out=out_nD)

    def _rows(self, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, Tensor):
            return self._raw_ND[rows.to(self._raw_ND.device)].to(self.device)
        return self._raw_ND[rows].to(self.device)


def query_and_gallery(queries: Any, gallery: Any) -> tuple[UnitRows, UnitRows]:
    unit_queries = UnitRows(queries, "queries")
    unit_gallery = UnitRows(gallery, "gallery", device=unit_queries.device)
    if unit_queries.dim != unit_gallery.dim:
        raise ShapeError(
            f"'queries' have dim {unit_queries.dim}, 'gallery' has dim {unit_gallery.dim}; both must be embeddings in "
            "one space"
        )
    return unit_queries, unit_gallery


def _floating_rows(x: Any, name: str) -> Tensor:
    if isinstance(x, np.ndarray) and not x.flags.writeable and x.dtype in (np.float32, np.float64):
        # Suppress torch's warning about read-only memory maps, since this module does not write to them.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            x = torch.from_numpy(x) if min(x.strides, default=0) >= 0 else x
    raw = as_dense(x, repr(name), "a floating-point tensor of shape (N, D)")
    if raw.ndim != 2 or 0 in raw.shape:
        raise ShapeError(f"{name!r} has shape {tuple(raw.shape)}; expected (N, D) with N >= 1 and D >= 1")
    if not raw.is_floating_point():
        raise ShapeError(f"{name!r} has dtype {raw.dtype}; expected a floating-point dtype")
    return raw.cpu() if raw.device.type == "mps" else raw  # MPS has no float64


def _usable(raw_ND: Tensor) -> Tensor:
    largest_N = raw_ND.detach().abs().amax(1)
    # The comparisons are False for NaN, infinity and zero.
    return (largest_N > 0) & (largest_N < torch.inf)


def _check(raw_ND: Tensor, bad_N: Tensor, name: str) -> None:
    bad = first_bad_row(raw_ND, bad_N)
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {bad.row} {bad.what}{bad.more}; "
            "cosines with such rows are undefined; remove these rows or fix them"
        )


def _unit(raw_ND: Tensor) -> Tensor:
    # Divide by the largest entry first, so that norms of huge and tiny rows neither overflow nor underflow.
    scaled_ND = raw_ND / raw_ND.detach().abs().amax(1, keepdim=True)
    norm_N1: Tensor = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    return scaled_ND / norm_N1
