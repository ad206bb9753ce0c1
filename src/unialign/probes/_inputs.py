"""Embed the inputs of zero-shot classification: raw media, features, or embeddings.

Shapes: `N` rows, `W` dimension of the features, `D` dimension of the space.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign._invalid_rows import first_bad_row, usable_rows
from unialign._plain_text import join_words
from unialign.batch import as_dense, row_mask
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.space import Space

Inputs = Literal["auto", "media", "features", "embeddings"]


class UnitInputs(NamedTuple):
    """(N, D) float64 unit rows on the CPU, 0 where absent, and the (N,) mask of present rows."""

    z_ND: Tensor
    present_N: Tensor


def embedded(
    space: Space | None, modality: str, values: Any, *, inputs: Inputs = "auto", present: Any = None
) -> UnitInputs:
    """Embed the values of a modality; with `auto`, lists are media, and the width of an array decides."""
    check_choice("inputs", inputs, get_args(Inputs))
    kind = _kind(space, modality, values) if inputs == "auto" else inputs
    if kind == "embeddings":
        return _unit(modality, values, present, None if space is None else space.dim)
    if space is None:
        raise ConfigError(f"{modality!r} is given as {kind}, which needs a space; pass a space, or unit embeddings")
    if modality not in space.modalities:
        raise ConfigError(f"the space has no modality {modality!r}; it has {join_words(space.modalities)}")
    if kind == "media" and modality not in space.encoders:
        raise ConfigError(
            f"the space has no encoder of {modality!r}, so raw media cannot be encoded; pass features "
            f"(N, {space.dims[modality]}), or add an encoder with space.with_encoders"
        )
    if kind == "media" and isinstance(values, np.ndarray):
        values = values.tolist()
    z_ND = space.encode({modality: values}, present=None if present is None else {modality: present})[modality]
    z_ND = z_ND.cpu().double()
    present_N = z_ND.any(1)
    # The rows of a space are unit rows of float32.
    return UnitInputs(z_ND / torch.linalg.vector_norm(z_ND, dim=1, keepdim=True).clamp(min=1e-300), present_N)


def _kind(space: Space | None, modality: str, values: Any) -> Inputs:
    if isinstance(values, str | bytes | os.PathLike | Mapping):
        raise ConfigError(f"{modality!r} must be a list with one value per row, got {type(values).__name__}; pass [x]")
    if space is None:
        return "embeddings"
    is_array = isinstance(values, Tensor) or (isinstance(values, np.ndarray) and values.dtype.kind not in "OUS")
    if not is_array:
        return "media"
    if modality not in space.dims or len(values.shape) != 2:
        return "features"  # `embedded` or the space raises an error
    width = values.shape[1]
    if width == space.dim == space.dims[modality]:
        raise ConfigError(
            f"{modality!r} has dim {width}, which is that of its features and of the space; pass inputs='features' or "
            f"inputs='embeddings'"
        )
    return "embeddings" if width == space.dim else "features"


def _unit(modality: str, values: Any, present: Any, dim: int | None) -> UnitInputs:
    expected = "floating-point rows (N, D)" if dim is None else f"floating-point rows (N, {dim})"
    z_ND = as_dense(values, repr(modality), expected).detach()
    if z_ND.ndim != 2 or not z_ND.is_floating_point() or 0 in z_ND.shape or dim not in (None, z_ND.shape[1]):
        raise ShapeError(f"{modality!r} is {z_ND.dtype} of shape {tuple(z_ND.shape)}; expected {expected}")
    z_ND = z_ND.cpu().double()
    present_N = torch.ones(len(z_ND), dtype=torch.bool)
    if present is not None:
        present_N &= row_mask(present, f"present of {modality!r}", len(z_ND)).cpu()
    bad = first_bad_row(z_ND, present_N & ~usable_rows(z_ND))
    if bad is not None:
        raise NonFiniteError(f"{modality!r} row {bad.row} {bad.what}{bad.more}; mark absent rows with present=")
    z_ND = torch.where(present_N[:, None], z_ND, 0.0)
    return UnitInputs(z_ND / torch.linalg.vector_norm(z_ND, dim=1, keepdim=True).clamp(min=1e-300), present_N)
