"""Convert integer or text labels to int64 codes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.batch import check_dense
from unialign.errors import ShapeError


def codes(labels: Any, name: str, *, rows: int | None = None) -> Tensor:
    """Return int64 codes 0..C-1 on the CPU; equal labels get equal codes."""
    values_N = _labels(labels, name, rows)
    return torch.from_numpy(np.unique(values_N, return_inverse=True)[1].astype(np.int64).reshape(-1))


def matching_codes(first: Any, second: Any, names: tuple[str, str], rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    a_N, b_N = _labels(first, names[0], rows[0]), _labels(second, names[1], rows[1])
    if (a_N.dtype.kind in "US") != (b_N.dtype.kind in "US"):
        raise ShapeError(
            f"{names[0]} are {a_N.dtype}, but {names[1]} are {b_N.dtype}; expected both text or both integers"
        )
    both = np.unique(np.concatenate([a_N, b_N]), return_inverse=True)[1].astype(np.int64).reshape(-1)
    return torch.from_numpy(both[: len(a_N)]), torch.from_numpy(both[len(a_N) :])


def label_codes(labels: Any, name: str, *, rows: int) -> np.ndarray[Any, Any]:
    """Return codes of labels; unlabeled rows (negative integers and empty strings) have code -1."""
    values_N = _labels(labels, name, rows)
    if values_N.dtype.kind in "US":
        texts_N = values_N.astype(str)
        known = np.unique(texts_N[texts_N != ""])
        return np.where(texts_N == "", -1, np.searchsorted(known, texts_N)).astype(np.int64)
    codes_N = values_N.astype(np.int64)
    return np.where(codes_N < 0, -1, codes_N)


def _labels(labels: Any, name: str, rows: int | None) -> np.ndarray[Any, Any]:
    expected = f"integers or text of shape {'(rows,)' if rows is None else f'({rows},)'}"
    if isinstance(labels, Tensor):
        check_dense(labels, name, expected)
    try:
        values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, dtypes without a NumPy equivalent
        raise ShapeError(f"{name} cannot be converted to an array ({error}); expected {expected}") from None
    if values.dtype.kind not in "biuUS" or values.ndim != 1 or (rows is not None and len(values) != rows):
        raise ShapeError(f"{name} is {values.dtype} of shape {values.shape}; expected {expected}")
    if values.dtype == np.uint64 and len(values) and values.max() >= 2**63:
        raise ShapeError(f"{name} has the value {values.max()}; expected integers below 2**63")
    return values
