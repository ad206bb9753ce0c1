"""Turn queries into corrected unit vectors.

Shapes: `Q` vectors, `D` dimension, `M` modalities.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import suggestion
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.index._calibration import Calibration
from unialign.index._query import Query, QueryPart

# A sum of parts with a smaller norm, relative to the sum of the absolute weights, has no direction.
_NO_DIRECTION = 1e-6


@dataclass(frozen=True)
class Vectors:
    """Vectors of several queries.

    Attributes:
        q_QD: corrected unit vectors, float64.
        share_QM: fraction of the absolute weights in each modality of the index.
    """

    q_QD: Tensor
    share_QM: Tensor


# (modality, value) -> (D,) uncorrected unit embedding.
Encode = Callable[[str, Any], Tensor]
# Part of kind `item` -> modality -> (D,) stored row.
Lookup = Callable[[QueryPart], dict[str, Tensor]]


def query_vectors(
    queries: Sequence[Query], calibration: Calibration, dim: int, *, encode: Encode, lookup: Lookup
) -> Vectors:
    """Correct the parts of each query by their own modality, add them with their weights, and normalize.

    Raises:
        ConfigError: a modality is unknown, or the parts of a query cancel.
        ShapeError, NonFiniteError: a vector is not (D,), or not finite, or has no direction.
    """
    names = calibration.modalities
    q_QD = torch.zeros(len(queries), dim, dtype=torch.float64)
    share_QM = torch.zeros(len(queries), len(names), dtype=torch.float64)
    for number, query in enumerate(queries):
        total = 0.0
        for part in query.parts:
            rows = _rows(part, names, dim, encode, lookup)
            mean_D = torch.zeros(dim, dtype=torch.float64)
            for name, z_D in rows.items():
                mean_D += _corrected(calibration, name, z_D)
                share_QM[number, names.index(name)] += abs(part.weight) / len(rows)
            norm = float(torch.linalg.vector_norm(mean_D))
            if norm > _NO_DIRECTION:
                q_QD[number] += part.weight * mean_D / norm
            total += abs(part.weight)
        norm = float(torch.linalg.vector_norm(q_QD[number]))
        if norm <= _NO_DIRECTION * total:
            raise ConfigError(
                "the parts of the query cancel, so their sum has no direction; change the weights or the parts"
            )
        q_QD[number] /= norm
        share_QM[number] /= total
    return Vectors(q_QD, share_QM)


def _rows(part: QueryPart, names: tuple[str, ...], dim: int, encode: Encode, lookup: Lookup) -> dict[str, Tensor]:
    if part.kind == "item":
        return lookup(part)
    assert part.modality is not None
    if part.modality not in names:
        raise ConfigError(
            f"unknown modality {part.modality!r} in the query; the index has {', '.join(map(repr, names))}"
            f"{suggestion(part.modality, names)}"
        )
    z_D = _vector(part, dim) if part.kind == "vector" else encode(part.modality, part.value)
    norm = float(torch.linalg.vector_norm(z_D))
    if not 0 < norm < torch.inf:
        raise NonFiniteError(f"the {part.modality!r} vector of the query is not finite or is 0")
    return {part.modality: z_D / norm}


def _vector(part: QueryPart, dim: int) -> Tensor:
    z_D = torch.as_tensor(np.asarray(part.value) if not isinstance(part.value, Tensor) else part.value).detach()
    if z_D.shape != (dim,) or not z_D.is_floating_point():
        raise ShapeError(f"the query vector has shape {tuple(z_D.shape)}; expected ({dim},) floating-point numbers")
    return z_D.cpu().double()


def _corrected(calibration: Calibration, name: str, z_D: Tensor) -> Tensor:
    corrected_D = calibration.correct(name, z_D[None])[0]
    if bool(corrected_D.isnan().any()):
        raise NonFiniteError(f"the {name!r} vector of the query equals the mean of its modality; it has no direction")
    return corrected_D


def is_features(value: Any) -> bool:
    """Whether a query input is an array of features, not raw media."""
    if isinstance(value, str | bytes | os.PathLike):
        return False
    dtype = getattr(value, "dtype", None)
    if isinstance(value, Tensor):
        return value.ndim == 1 and value.is_floating_point()
    return isinstance(value, np.ndarray) and value.ndim == 1 and dtype is not None and dtype.kind == "f"
