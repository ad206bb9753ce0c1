"""Validate the input of a space, and normalize its output to unit rows.

Shapes: `B` rows, `W` dimension of the features, `D` dimension of the space.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_integer, check_number, has_surrogate
from unialign._invalid_rows import first_bad_row, usable_rows
from unialign.batch import check_dense, row_mask
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.space._normalizer import divide_by_norm

# This limit is far above the dim of any encoder, so larger values indicate a mistake or a malicious file.
_MAX_DIM = 1 << 20


def check_sizes(dims: Any, dim: Any, hidden: Any, dropout: Any) -> None:
    if not isinstance(dims, Mapping) or not dims:
        raise ConfigError(f"dims must map at least one modality to its dim, such as {{'image': 512}}; got {dims!r}")
    for name, in_dim in dims.items():
        if not isinstance(name, str):
            raise ConfigError(f"modality names must be strings, got {name!r}")
        if has_surrogate(name):
            raise ConfigError(f"modality names must be valid Unicode, got {name!r} with an unpaired surrogate")
        check_integer(f"dim of {name!r}", in_dim, low=1, high=_MAX_DIM)
    check_integer("dim", dim, low=1, high=_MAX_DIM)
    check_integer("hidden", hidden, low=1, high=_MAX_DIM)
    check_number("dropout", dropout, "in [0, 1)", lambda x: 0 <= x < 1)


def check_kernel(regularization: Any, landmarks: Any, kernel_sizes: Any, dims: Mapping[str, int], frozen: Any) -> None:
    check_number("regularization", regularization, "a positive finite number", lambda x: 0 < x < math.inf)
    check_landmarks(landmarks)
    if kernel_sizes is None:
        return
    if not isinstance(kernel_sizes, Mapping):
        raise ConfigError(f"kernel_sizes must map modalities to two sizes, got {kernel_sizes!r}")
    if missing := [name for name in dims if name not in kernel_sizes and name not in frozen]:
        raise ConfigError(f"kernel_sizes lacks {', '.join(map(repr, missing))}; give two sizes for each modality")
    for name, sizes in kernel_sizes.items():
        if name not in dims or not isinstance(sizes, Sequence) or len(sizes) != 2:
            raise ConfigError(
                f"kernel_sizes[{name!r}] must be the numbers of landmarks and features of a modality, got {sizes!r}"
            )
        for size in sizes:
            check_integer(f"kernel_sizes[{name!r}]", size, low=1, high=_MAX_DIM)


def check_landmarks(landmarks: Any) -> None:
    if not isinstance(landmarks, str) or landmarks != "auto":
        check_integer("landmarks", landmarks, low=2, high=_MAX_DIM)


def check_names(names: Iterable[str], dims: Mapping[str, int], argument: str) -> None:
    for name in names:
        if name not in dims:
            raise ConfigError(f"unknown modality {name!r} in `{argument}`; this space has {', '.join(map(repr, dims))}")


def check_batch(features: Any, present: Any, dims: Mapping[str, int]) -> dict[str, Tensor]:
    if not isinstance(features, Mapping):
        raise ShapeError(f"features must map each modality to an array (B, W), got {type(features).__name__}")
    if present is not None and not isinstance(present, Mapping):
        raise ShapeError(f"`present` must map each modality to a boolean mask (B,), got {type(present).__name__}")
    masks = present or {}
    check_names(features, dims, "features")
    check_names(masks, dims, "present")
    rows = {name: _check_features(name, x, dims[name]) for name, x in features.items()}
    return {name: row_mask(masks[name], f"present[{name!r}]", rows[name]) for name in rows if name in masks}


def check_finite(name: str, x_BW: Tensor, mask_B: Tensor | None, start: int) -> None:
    """Raise NonFiniteError if a present row is not finite; `start` is the row number of the first row."""
    bad_B = ~torch.isfinite(x_BW).all(-1)
    bad = first_bad_row(x_BW, bad_B if mask_B is None else bad_B & mask_B)
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {start + bad.row} {bad.what}{bad.more}; mark items without {name!r} as absent with "
            f"`present=`, or drop them"
        )


def normalize_output(name: str, raw_BD: Tensor, mask_B: Tensor | None, start: int) -> Tensor:
    unusable_B = ~usable_rows(raw_BD)
    bad = first_bad_row(raw_BD, unusable_B if mask_B is None else unusable_B & mask_B)
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {start + bad.row} maps to an embedding that {bad.what}{bad.more}; "
            f"check the row's features and the weights of the head"
        )
    unit_BD = divide_by_norm(raw_BD)
    return unit_BD if mask_B is None else torch.where(mask_B[:, None], unit_BD, 0.0)


def _check_features(name: str, x: Any, dim: int) -> int:
    """Return B, without copying x."""
    if isinstance(x, Tensor):
        check_dense(x, repr(name), f"(B, {dim})")
        numbers = not x.is_complex() and x.dtype != torch.bool
    else:
        try:
            x = np.asarray(x)
        except (TypeError, ValueError, RuntimeError) as error:  # ragged lists
            raise ShapeError(
                f"{name!r} cannot be converted to an array ({error}); expected real numbers of shape (B, W)"
            ) from None
        # Accept at most 8 bytes per number, since PyTorch has no long double.
        numbers = x.dtype.kind in "fiu" and x.dtype.itemsize <= 8
    if not numbers:
        raise ShapeError(f"{name!r} has dtype {x.dtype}; expected real numbers of at most 64 bits")
    if x.ndim != 2 or x.shape[1] != dim:
        raise ShapeError(f"{name!r} has shape {tuple(x.shape)}; expected (B, {dim})")
    return int(x.shape[0])
