"""Validate the inputs of mixtures: normalized rows, presence, normalized weights.

Shapes: `K` inputs, `B` rows, `D` dimension of the space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._unit_rows import normalize_rows
from unialign.batch import as_dense, first_bad_row, row_mask, usable_rows
from unialign.errors import ConfigError, NonFiniteError, ShapeError

__all__ = ["InterpolationInputs", "finite_numbers", "mixing_weights", "normalized_weights", "stack_rows"]

InterpolationInputs = Mapping[str, Any] | Sequence[Any]


def stack_rows(embeddings: Any, present: Any) -> tuple[list[str], Tensor, Tensor]:
    """Return names, (K, B, D) unit rows in float32 or float64, and (K, B) presence; absent rows are 0."""
    if isinstance(embeddings, Mapping):
        if wrong := [name for name in embeddings if not isinstance(name, str)]:
            raise ConfigError(f"names of rows must be strings, got {wrong[0]!r}; pass a list for rows without names")
        named = dict(embeddings)
    elif isinstance(embeddings, Sequence) and not isinstance(embeddings, str):
        named = {f"rows {k}": z for k, z in enumerate(embeddings)}
    else:
        raise ShapeError(f"expected a mapping or a sequence of (B, D) rows, got {type(embeddings).__name__}")
    if not named:
        raise ShapeError("a mixture needs at least one tensor of rows")
    named = {name: as_dense(z, repr(name), "(B, D)") for name, z in named.items()}
    for name, z in named.items():
        if z.ndim != 2 or z.shape[1] == 0 or z.is_complex() or z.dtype == torch.bool:
            raise ShapeError(f"{name!r} is {z.dtype} of shape {tuple(z.shape)}; expected real numbers (B, D)")
    count = next((len(z) for z in named.values() if len(z) != 1), 1)
    first = next(iter(named.values()))
    if any(z.shape[1] != first.shape[1] or len(z) not in (1, count) for z in named.values()):
        shapes = ", ".join(f"{name!r} {tuple(z.shape)}" for name, z in named.items())
        raise ShapeError(f"mixed rows have shapes {shapes}; expected (B, D) for all, or (1, D)")
    present = {} if present is None else present
    if not isinstance(present, Mapping):
        raise ShapeError(f"`present` must be a mapping of modality to ({count},) bool, got {type(present).__name__}")
    if unknown := [name for name in present if name not in named]:
        raise ConfigError(f"`present` names {unknown[0]!r}, which is not among the mixed rows: {', '.join(named)}")
    masks = {name: row_mask(mask_B, f"present[{name!r}]", count) for name, mask_B in present.items()}
    everywhere_B = torch.ones(count, dtype=torch.bool)
    present_KB = torch.stack([masks.get(name, everywhere_B).cpu() for name in named]).to(first.device)
    dtype = torch.float64 if any(z.dtype == torch.float64 for z in named.values()) else torch.float32
    rows = [z.to(dtype).expand(count, -1) for z in named.values()]
    largest = []
    for name, z_BD, present_B in zip(named, rows, present_KB, strict=True):
        largest_B, usable_B = usable_rows(z_BD)
        largest.append(largest_B)
        bad = first_bad_row(z_BD, present_B & ~usable_B)
        if bad is not None:
            raise NonFiniteError(
                f"{name!r}, row {bad.row}, {bad.what}{bad.more}; expected finite rows that are not zero"
            )
    return list(named), normalize_rows(rows, torch.stack(largest), present_KB if masks else None), present_KB


def mixing_weights(weights: Any, names: Sequence[str], z_KBD: Tensor) -> Tensor:
    """Return (K,) nonnegative weights that sum to 1."""
    if weights is None:
        weights = [1.0] * len(names)
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            given = ", ".join(map(str, weights))
            raise ConfigError(f"weights are for {given}; expected one for each of {', '.join(names)}")
        weights = [weights[name] for name in names]
    weights_K = finite_numbers(weights, len(names))
    if bool((weights_K < 0).any()) or not bool((weights_K > 0).any()):
        raise ConfigError(
            f"weights must be at least 0 and not all 0, got {weights_K.tolist()}; see `linear_combination` for others"
        )
    return normalized_weights(weights_K).to(z_KBD)


def normalized_weights(weights_K: Tensor) -> Tensor:
    """Divide float64 weights by the sum of their absolute values, which may exceed the range of float32."""
    weights_K = weights_K / weights_K.abs().max()
    return weights_K / weights_K.abs().sum()


def finite_numbers(values: Any, count: int | None) -> Tensor:
    """Return finite numbers as a float64 tensor: `count` weights, or values of t if None."""
    # Convert with numpy, since torch would round Python floats to float32.
    if isinstance(values, list | tuple):
        values = [v.detach().cpu() if isinstance(v, Tensor) else v for v in values]
    values = values if isinstance(values, Tensor) else np.asarray(values)
    numbers = as_dense(values, "weights" if count is not None else "t", "finite numbers")
    wrong = numbers.is_complex() or numbers.dtype == torch.bool or not bool(torch.isfinite(numbers).all())
    if wrong or (count is not None and numbers.shape != (count,)):
        what = "t must be finite numbers" if count is None else f"weights must be {count} finite numbers, one for each"
        raise ConfigError(f"{what}, got {numbers.tolist()}")
    return numbers.double()
