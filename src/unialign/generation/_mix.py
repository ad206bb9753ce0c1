"""Mixtures of rows of the unit sphere: means, geodesics, barycentres, arithmetic.

All are differentiable, and compute in float32 or better.

Shapes: `K` things that are mixed, `B` rows, `D` width of the space, `T` steps of a path.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer
from unialign.embeddings import as_dense, first_bad_row
from unialign.errors import ConfigError, NonFiniteError, ShapeError

__all__ = ["barycentre", "combine", "interpolate", "mean", "slerp"]

Rows = Mapping[str, Any] | Sequence[Any]
Lengths = Literal["unit", "kept"]

# A mixture shorter than this has no direction to speak of: its parts cancel.
_LEAST = 1e-6
# Within this angle of each other two rows are mixed along the chord: the arc's formula would divide 0 by 0.
_NEAR = 1e-4


def mean(
    embeddings: Rows, *, weights: Any = None, lengths: Lengths = "unit", present: Mapping[str, Any] | None = None
) -> Tensor:
    """Weighted mean of K rows, (B, D).

    Args:
        embeddings: modality -> (B, D) rows, or a sequence of them; made unit first.
        weights: K numbers of at least 0, by name or in order; only their ratios count. None: equal ones.
        lengths: `unit` renormalises. `kept` leaves the mean inside the sphere, as the paper's (z_t + z_a) / 2
            (arXiv 2602.09507): of length sqrt((1 + cos) / 2) for two rows, the shorter the more they disagree.
        present: modality -> (B,) bool; absent rows leave the mean of their item.

    Raises:
        ShapeError: not (B, D), or of different sizes.
        ConfigError: weights of another number, negative, or all 0.
        NonFiniteError: a row is not finite or zero; an item has nothing present; rows cancel.
    """
    check_choice("lengths", lengths, ("unit", "kept"))
    names, z_KBD, present_KB = _stack(embeddings, present)
    weights_KB = _weights(weights, names, z_KBD)[:, None] * present_KB.to(z_KBD)
    total_B = weights_KB.sum(0)
    _refuse(total_B <= 0, z_KBD[0], "has no weight: none of its modalities is present with a weight above 0")
    mixed_BD = (weights_KB[..., None] * z_KBD).sum(0) / total_B[:, None]
    return _unit(mixed_BD) if lengths == "unit" else mixed_BD


def combine(terms: Sequence[tuple[float, Any]]) -> Tensor:
    """Arithmetic such as king - man + woman: the unit row of sum_k weight_k z_k, (B, D).

    Args:
        terms: (weight, (B, D) rows) pairs; weights are any finite numbers.

    Raises:
        as `mean`.
    """
    if not terms:
        raise ConfigError("combine needs at least one (weight, rows) pair")
    names, z_KBD, _ = _stack([rows for _, rows in terms], None)
    weights_K = _finite([weight for weight, _ in terms], len(names)).to(z_KBD)
    return _unit((weights_K[:, None, None] * z_KBD).sum(0))


def slerp(a: Any, b: Any, t: Any) -> Tensor:
    """The point at fraction t of the arc from a to b (Shoemake 1985), sin((1 - t) w) / sin w a + sin(t w) / sin w b.

    Args:
        a, b: (B, D) rows, or (1, D), made unit first.
        t: a number, or (T,) of them; outside [0, 1] the arc goes on.

    Returns:
        (B, D), or (T, B, D) for several t. At 1/2 it is the renormalised mean.

    Raises:
        NonFiniteError: rows are opposite, between which every arc is as short as any other.
    """
    _, z_2BD, _ = _stack([a, b], None)
    t_T = _finite([t] if isinstance(t, int | float) else t, None).to(z_2BD)
    out_TBD = _arc(z_2BD[0], z_2BD[1], t_T)
    return out_TBD[0] if isinstance(t, int | float) else out_TBD


def interpolate(ends: Any, *, steps: int, path: Literal["slerp", "linear"] = "slerp") -> Tensor:
    """A path through waypoints, (steps, D) or (steps, B, D), evenly spaced in its parameter, both ends included.

    Args:
        ends: (K, D) or (K, B, D), at least 2 waypoints.
        steps: T, at least 2.
        path: arcs from one waypoint to the next, or chords, whose points are shorter than 1.

    Raises:
        as `slerp`.
    """
    check_integer("steps", steps, low=2)
    check_choice("path", path, ("slerp", "linear"))
    ends = as_dense(ends, "ends", "(K, D) or (K, B, D)")
    if ends.ndim not in (2, 3) or len(ends) < 2:
        raise ShapeError(f"ends have shape {tuple(ends.shape)}; expected (K, D) or (K, B, D) with at least 2 waypoints")
    _, z_KBD, _ = _stack(list(ends if ends.ndim == 3 else ends[:, None]), None)
    legs = len(z_KBD) - 1
    out = []
    for step in range(steps):
        place = step * legs / (steps - 1)
        leg = min(int(place), legs - 1)
        t = place - leg
        if t in (0, 1):
            out.append(z_KBD[leg + round(t)])
        elif path == "linear":
            out.append(torch.lerp(z_KBD[leg], z_KBD[leg + 1], t))
        else:
            out.append(_arc(z_KBD[leg], z_KBD[leg + 1], torch.tensor([t]).to(z_KBD))[0])
    z_TBD = torch.stack(out)
    return z_TBD if ends.ndim == 3 else z_TBD[:, 0]


def barycentre(
    embeddings: Rows, *, weights: Any = None, iterations: int = 50, tolerance: float | None = None
) -> Tensor:
    """The point of the sphere with the least weighted sum of squared angles (Buss & Fillmore 2001), (B, D).

    For two rows it is `slerp` at the second one's weight. It differs from the renormalised mean in how weights act: a
    third of the weight is a third of the angle here, of the chord there.

    Args:
        embeddings, weights: as in `mean`.
        iterations: steps of at most; it gains about a digit a step when rows lie within a right angle of each other.
        tolerance: ends when no row moves farther; None: a few roundings.

    Raises:
        as `mean`.
    """
    check_integer("iterations", iterations, low=1)
    names, z_KBD, _ = _stack(embeddings, None)
    weights_K = _weights(weights, names, z_KBD)
    weights_K11 = (weights_K / weights_K.sum())[:, None, None]
    least = 8 * torch.finfo(z_KBD.dtype).eps if tolerance is None else tolerance
    at_BD = _unit((weights_K11 * z_KBD).sum(0))
    for _ in range(iterations):
        cos_KB1 = (z_KBD * at_BD).sum(-1, keepdim=True)
        side_KBD = z_KBD - cos_KB1 * at_BD
        sin_KB1 = _length(side_KBD)
        angle_KB1 = torch.atan2(sin_KB1, cos_KB1)
        # angle / sin tends to 1 where a row is met exactly.
        ratio_KB1 = torch.where(sin_KB1 > _NEAR**2, angle_KB1 / sin_KB1.clamp_min(_NEAR**2), 1.0)
        move_BD = (weights_K11 * ratio_KB1 * side_KBD).sum(0)
        length_B1 = _length(move_BD)
        at_BD = _unit(torch.cos(length_B1) * at_BD + torch.sinc(length_B1 / math.pi) * move_BD)
        if float(length_B1.detach().max()) <= least:
            break
    return at_BD


def _arc(a_BD: Tensor, b_BD: Tensor, t_T: Tensor) -> Tensor:
    cos_B = (a_BD * b_BD).sum(-1).clamp(-1, 1)
    opposite_B = _length(a_BD + b_BD)[..., 0] < 1e-3
    _refuse(opposite_B, a_BD, "is opposite to the row that it is mixed with; there is no shortest arc between them")
    # From chords, not arccos, which loses half of the digits near 1.
    angle_B = 2 * torch.atan2(_length(a_BD - b_BD), _length(a_BD + b_BD))[..., 0]
    near_B = angle_B < _NEAR
    safe_B = torch.where(near_B, torch.ones_like(cos_B), angle_B)
    t_T1 = t_T[:, None]
    first_TB = torch.where(near_B, 1 - t_T1, torch.sin((1 - t_T1) * safe_B) / torch.sin(safe_B))
    second_TB = torch.where(near_B, t_T1.expand_as(first_TB), torch.sin(t_T1 * safe_B) / torch.sin(safe_B))
    return _unit(first_TB[..., None] * a_BD + second_TB[..., None] * b_BD)


def _length(x: Tensor) -> Tensor:
    """Norm over the last axis, kept, with a gradient of 0 rather than NaN at 0."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _unit(x_BD: Tensor) -> Tensor:
    length_B1 = _length(x_BD)
    _refuse(length_B1[..., 0] < _LEAST, x_BD, "cancels: what is mixed points in opposite directions")
    return x_BD / length_B1


def _refuse(bad: Tensor, x: Tensor, what: str) -> None:
    first = first_bad_row(x.expand(*bad.shape, x.shape[-1]), bad)
    if first is not None:
        raise NonFiniteError(f"row {first.row} of the mixture {what}{first.more}")


def _stack(embeddings: Any, present: Any) -> tuple[list[str], Tensor, Tensor]:
    """Names, (K, B, D) unit rows in float32 or better, and (K, B) presence; absent rows are 0."""
    if isinstance(embeddings, Mapping):
        names, values = [str(name) for name in embeddings], list(embeddings.values())
    elif isinstance(embeddings, Sequence) and not isinstance(embeddings, str):
        names, values = [f"rows {k}" for k in range(len(embeddings))], list(embeddings)
    else:
        raise ShapeError(f"a mixture is of a mapping or a sequence of (B, D) rows, got {type(embeddings).__name__}")
    if not values:
        raise ShapeError("a mixture needs at least one tensor of rows")
    tensors = [as_dense(z, repr(name), "(B, D)") for name, z in zip(names, values, strict=True)]
    count = max((len(z) for z in tensors if z.ndim == 2), default=0)
    for name, z in zip(names, tensors, strict=True):
        if z.ndim != 2 or z.shape[1] != tensors[0].shape[1] or len(z) not in (1, count):
            raise ShapeError(
                f"{name!r} has shape {tuple(z.shape)}, {names[0]!r} {tuple(tensors[0].shape)}; expected (B, D) for all"
            )
        if z.is_complex() or z.dtype == torch.bool:
            raise ShapeError(f"{name!r} has dtype {z.dtype}; expected real numbers")
    wide = torch.float64 if any(z.dtype == torch.float64 for z in tensors) else torch.float32
    if unknown := set(present or {}) - set(names):
        raise ConfigError(f"`present` names {sorted(unknown)[0]!r}, which is not mixed; mixed are {', '.join(names)}")
    rows, masks = [], []
    for name, z in zip(names, tensors, strict=True):
        mask_B = torch.ones(count, dtype=torch.bool, device=z.device)
        if present and name in present:
            mask_B = as_dense(present[name], f"present[{name!r}]", "(B,) bool").to(z.device)
            if mask_B.dtype != torch.bool or mask_B.shape != (count,):
                raise ShapeError(
                    f"present[{name!r}] is {tuple(mask_B.shape)} of {mask_B.dtype}; expected ({count},) bool"
                )
        z_BD = z.to(wide).expand(count, -1)
        z_BD = torch.where(mask_B[:, None], z_BD, 0.0)
        bad = first_bad_row(z_BD, mask_B & (~torch.isfinite(z_BD).all(1) | ~z_BD.any(1)))
        if bad is not None:
            raise NonFiniteError(
                f"{name!r}, row {bad.row}, {bad.what}{bad.more}; only rows with a direction can be mixed"
            )
        length_B1 = _length(z_BD)
        rows.append(z_BD / torch.where(length_B1 > 0, length_B1, 1.0))
        masks.append(mask_B)
    return names, torch.stack(rows), torch.stack(masks)


def _weights(weights: Any, names: Sequence[str], z_KBD: Tensor) -> Tensor:
    if weights is None:
        return torch.ones(len(names)).to(z_KBD)
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise ConfigError(
                f"weights are of {', '.join(map(str, weights))}; expected one for each of {', '.join(names)}"
            )
        weights = [weights[name] for name in names]
    weights_K = _finite(weights, len(names)).to(z_KBD)
    if bool((weights_K < 0).any()) or not bool((weights_K > 0).any()):
        raise ConfigError(
            f"weights must be at least 0 and not all 0, got {weights_K.tolist()}; see `combine` for others"
        )
    return weights_K


def _finite(values: Any, count: int | None) -> Tensor:
    # Python's numbers through numpy: torch would round them to float32.
    values = values if isinstance(values, Tensor) else np.asarray(values)
    numbers = as_dense(values, "weights" if count is not None else "t", "finite numbers").double()
    if numbers.ndim != 1 or (count is not None and len(numbers) != count) or not bool(torch.isfinite(numbers).all()):
        expected = "finite numbers" if count is None else f"{count} finite numbers"
        raise ConfigError(f"expected {expected}, got {numbers.tolist()}")
    return numbers
