"""Turn queries into corrected unit vectors.

Shapes: `Q` vectors, `D` dimension, `M` modalities.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._checks import suggestion
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.index._calibration import Calibration
from unialign.index._query import Query, QueryPart

# A sum of parts with a smaller norm, relative to the sum of the absolute weights, has no direction.
_NO_DIRECTION = 1e-6


Fuse = Literal["mean", "frechet_mean", "max", "rrf"]
FUSES = get_args(Fuse)


@dataclass(frozen=True)
class Vectors:
    """Vectors of several queries; with `max` and `rrf`, a query has one vector for each of its parts.

    Attributes:
        q_QD: corrected unit vectors, float64.
        share_QM: fraction of the absolute weights of a vector in each modality of the index.
        owner_Q: number of the query of each vector, ascending.
        weight_Q: weights of the vectors; their absolute values sum to 1 for each query.
    """

    q_QD: Tensor
    share_QM: Tensor
    owner_Q: Tensor
    weight_Q: Tensor

    def of(self, query: int) -> Tensor:
        """Return the numbers of the vectors of a query."""
        return (self.owner_Q == query).nonzero()[:, 0]


# (modality, value) -> (D,) uncorrected unit embedding.
Encode = Callable[[str, Any], Tensor]
# Part of kind `item` -> modality -> (D,) stored row.
Lookup = Callable[[QueryPart], dict[str, Tensor]]


def query_vectors(
    queries: Sequence[Query],
    calibration: Calibration,
    dim: int,
    *,
    encode: Encode,
    lookup: Lookup,
    fuse: Fuse = "mean",
) -> Vectors:
    """Correct the parts of each query by their own modality, and fuse them.

    `mean` is the normalized weighted sum, in which an item counts as one part, the normalized mean of its rows.
    `frechet_mean` minimizes the weighted sum of squared angles. `max` and `rrf` keep one vector for each row.

    Raises:
        ConfigError: a modality is unknown, or the parts of a query cancel or have no Fréchet mean.
        ShapeError, NonFiniteError: a vector is not (D,), or not finite, or has no direction.
    """
    names = calibration.modalities
    q: list[Tensor] = []
    share: list[Tensor] = []
    owner: list[int] = []
    weight: list[float] = []
    for number, query in enumerate(queries):
        rows = [
            [
                (name, _corrected(calibration, name, z_D))
                for name, z_D in _rows(part, names, dim, encode, lookup).items()
            ]
            for part in query.parts
        ]
        total = sum(abs(part.weight) for part in query.parts)
        share_M = torch.zeros(len(names), dtype=torch.float64)
        for part, found in zip(query.parts, rows, strict=True):
            for name, q_D in found:
                part_weight = part.weight / total / len(found)
                share_M[names.index(name)] += abs(part_weight)
                if fuse in ("max", "rrf"):
                    q.append(q_D)
                    share.append(one_hot(names, name))
                    owner.append(number)
                    weight.append(part_weight)
        if fuse in ("mean", "frechet_mean"):
            fused = _mean if fuse == "mean" else _frechet_mean
            q.append(fused(query.parts, [[q_D for _, q_D in found] for found in rows]))
            share.append(share_M)
            owner.append(number)
            weight.append(1.0)
    if not q:
        empty = torch.zeros(0, dtype=torch.float64)
        return Vectors(empty.view(0, dim), empty.view(0, len(names)), empty.long(), empty)
    return Vectors(torch.stack(q), torch.stack(share), torch.tensor(owner), torch.tensor(weight, dtype=torch.float64))


def one_hot(names: Sequence[str], name: str) -> Tensor:
    """Return (M,) numbers, 1 for a modality and 0 for the others."""
    share_M = torch.zeros(len(names), dtype=torch.float64)
    share_M[names.index(name)] = 1
    return share_M


def _mean(parts: Sequence[QueryPart], rows: Sequence[Sequence[Tensor]]) -> Tensor:
    sum_D = torch.zeros_like(rows[0][0])
    for part, found in zip(parts, rows, strict=True):
        mean_D = torch.stack(list(found)).sum(0)
        norm = float(torch.linalg.vector_norm(mean_D))
        if norm > _NO_DIRECTION:
            sum_D += part.weight * mean_D / norm
    norm = float(torch.linalg.vector_norm(sum_D))
    if norm <= _NO_DIRECTION * sum(abs(part.weight) for part in parts):
        raise ConfigError(
            "the parts of the query cancel, so their sum has no direction; change the weights or the parts"
        )
    return sum_D / norm


def _frechet_mean(parts: Sequence[QueryPart], rows: Sequence[Sequence[Tensor]]) -> Tensor:
    # Imported here, since other searches do not need the package.
    from unialign.generation import frechet_mean

    if any(part.weight < 0 for part in parts):
        raise ConfigError("fuse='frechet_mean' needs positive weights; use fuse='mean' to subtract parts")
    flat = {
        f"part {number} row {place}": q_D[None] for number, found in enumerate(rows) for place, q_D in enumerate(found)
    }
    weights = [part.weight / len(found) for part, found in zip(parts, rows, strict=True) for _ in found]
    if len(flat) == 1:
        return rows[0][0]
    try:
        return frechet_mean(flat, weights=weights)[0].double()
    except NonFiniteError as error:
        raise ConfigError(f"the parts of the query have no Fréchet mean ({error}); use fuse='mean'") from None


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
    try:
        z_D = torch.as_tensor(np.array(part.value) if not isinstance(part.value, Tensor) else part.value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"the query vector is a {type(part.value).__name__}; expected ({dim},) numbers") from None
    if z_D.shape != (dim,) or not z_D.is_floating_point():
        raise ShapeError(
            f"the query vector has shape {tuple(z_D.shape)} and dtype {z_D.dtype}; expected ({dim},) floating-point "
            "numbers"
        )
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
