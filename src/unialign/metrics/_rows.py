"""The border of the metrics: anything array-like becomes float64 unit rows, anything id-like becomes int64 codes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.embeddings import as_dense, check_dense, first_bad_row
from unialign.errors import NonFiniteError, ShapeError

__all__ = ["codes", "matching_codes", "unit_rows"]


def unit_rows(x: Any, name: str) -> Tensor:
    """Validate (N, D) rows and scale each to unit length, in float64.

    float64 because cosine ranks hang on the last digits: half-precision inputs are exact in it, and rounding of the
    product (about 1e-16) stays far below real differences of float32 scores (about 1e-8), so ties can be told apart.

    Args:
        x: floating (N, D) tensor, or what `torch.as_tensor` accepts; N and D at least 1.
        name: what an error calls it.

    Raises:
        ShapeError: not 2-D, empty, or not floating.
        NonFiniteError: a row holds NaN or infinity, or has norm zero; names the side, the row and the value.
    """
    raw = as_dense(x, repr(name), "floating (rows, width)")
    if raw.ndim != 2 or 0 in raw.shape:
        raise ShapeError(f"{name!r} has shape {tuple(raw.shape)}; expected (rows, width) with at least one of each")
    if not raw.is_floating_point():
        raise ShapeError(f"{name!r} has dtype {raw.dtype}; expected a floating dtype")
    if raw.device.type == "mps":  # has no float64
        raw = raw.cpu()
    raw_ND = raw.to(torch.float64)
    largest_N = raw_ND.detach().abs().amax(1)
    # One comparison catches NaN, infinity and zero.
    usable_N = (largest_N > 0) & (largest_N < torch.inf)
    bad = first_bad_row(raw_ND, ~usable_N)
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {bad.row} {bad.what}{bad.more}; "
            "a comparison with such a row is meaningless: leave these items out, or find what produced them"
        )
    # Dividing by the largest entry first keeps the norm of huge and of tiny rows finite.
    scaled_ND = raw_ND / largest_N[:, None]
    norm_N1: Tensor = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    return scaled_ND / norm_N1


def codes(labels: Any, name: str, *, rows: int | None = None) -> Tensor:
    """Integer or text labels (N,) as int64 codes 0..C-1 on the CPU; equal labels get equal codes."""
    values_N = _labels(labels, name, rows)
    return torch.from_numpy(np.unique(values_N, return_inverse=True)[1].astype(np.int64).reshape(-1))


def matching_codes(first: Any, second: Any, names: tuple[str, str], rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two label arrays in one common coding."""
    a_N, b_N = _labels(first, names[0], rows[0]), _labels(second, names[1], rows[1])
    if (a_N.dtype.kind in "US") != (b_N.dtype.kind in "US"):
        raise ShapeError(f"{names[0]} are {a_N.dtype}, {names[1]} are {b_N.dtype}; expected both text or both integers")
    both = np.unique(np.concatenate([a_N, b_N]), return_inverse=True)[1].astype(np.int64).reshape(-1)
    return torch.from_numpy(both[: len(a_N)]), torch.from_numpy(both[len(a_N) :])


def _labels(labels: Any, name: str, rows: int | None) -> np.ndarray[Any, Any]:
    expected = f"integers or text of shape {'(rows,)' if rows is None else f'({rows},)'}"
    if isinstance(labels, Tensor):
        check_dense(labels, name, expected)
    try:
        values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, dtypes that NumPy does not have
        raise ShapeError(f"{name} cannot become an array ({error}); expected {expected}") from None
    if values.dtype.kind not in "biuUS" or values.ndim != 1 or (rows is not None and len(values) != rows):
        raise ShapeError(f"{name} is {values.dtype} of shape {values.shape}; expected {expected}")
    return values
