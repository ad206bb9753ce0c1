"""Validate the inputs of mixtures, and normalize rows and weights.

Shapes: `K` inputs, `B` rows, `D` dimension of the space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.batch import Batch, as_dense, as_tensors, make_batch
from unialign.errors import ConfigError, ShapeError

InterpolationInputs = Mapping[str, Any] | Sequence[Any]


def make_mixing_batch(embeddings: Any, present: Any = None) -> Batch:
    """Make a batch; (1, D) is broadcast, and integers are converted to floats."""
    if isinstance(embeddings, Sequence) and not isinstance(embeddings, str):
        embeddings = {f"rows {k}": z for k, z in enumerate(embeddings)}
    if not isinstance(embeddings, Mapping):
        raise ShapeError(f"expected a mapping or a sequence of (B, D) rows, got {type(embeddings).__name__}")
    tensors: dict[str, Tensor] = as_tensors(embeddings)
    dtype = torch.float64 if any(z.dtype == torch.float64 for z in tensors.values()) else torch.float32
    count = next((len(z) for z in tensors.values() if z.ndim == 2 and len(z) != 1), 1)
    rows = {}
    for name, z in tensors.items():
        integer = not (z.is_floating_point() or z.is_complex() or z.dtype == torch.bool)
        z = z.to(dtype) if integer else z
        rows[name] = z.expand(count, -1) if z.ndim == 2 and len(z) == 1 else z
    return make_batch(rows, present=present, minimum=1)


def mixing_weights(weights: Any, batch: Batch) -> Tensor:
    names = batch.names
    if weights is None:
        weights = [1.0] * len(names)
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            given = ", ".join(map(str, weights))
            raise ConfigError(f"weights are given for {given}; expected one for each of {', '.join(names)}")
        weights = [weights[name] for name in names]
    weights_K = finite_numbers(weights, len(names))
    if bool((weights_K < 0).any()) or not bool((weights_K > 0).any()):
        raise ConfigError(
            f"weights must be at least 0 and not all 0, got {weights_K.tolist()}; `linear_combination` accepts others"
        )
    return normalized_weights(weights_K).to(batch.z_MBD)


def normalized_weights(weights_K: Tensor) -> Tensor:
    """Divide float64 weights, which may exceed the range of float32, by the sum of their absolute values."""
    weights_K = weights_K / weights_K.abs().max()
    return weights_K / weights_K.abs().sum()


def finite_numbers(values: Any, count: int | None) -> Tensor:
    """Convert numbers to a tensor; `count` is None for values of t."""
    # Convert with NumPy, since PyTorch would round Python floats to float32.
    if isinstance(values, list | tuple):
        values = [v.detach().cpu() if isinstance(v, Tensor) else v for v in values]
    values = values if isinstance(values, Tensor) else np.asarray(values)
    what = "t" if count is None else "weights"
    numbers = as_dense(values, what, "finite numbers")
    wrong = numbers.is_complex() or numbers.dtype == torch.bool or not bool(torch.isfinite(numbers).all())
    if wrong or (count is not None and numbers.shape != (count,)):
        expected = "finite numbers" if count is None else f"{count} finite numbers, one for each"
        raise ConfigError(f"{what} must be {expected}, got {numbers.tolist()}")
    return numbers.double()
