"""Mixtures of rows of the unit sphere: means, geodesics, barycentres, arithmetic.

All make their rows unit first, are differentiable, and compute in float32 or better.

Shapes: `K` things that are mixed, `B` rows, `D` width of the space, `T` steps of a path.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_nonnegative
from unialign.batch import as_dense, first_bad_row
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.generation._interpolation_inputs import Rows, finite_numbers, mixing_weights, shares, stack_rows

__all__ = ["frechet_mean", "interpolate", "linear_combination", "mean", "slerp"]

Lengths = Literal["unit", "kept"]

# What is left of unit rows that cancel is so many roundings long, and has no direction to speak of.
_ROUNDINGS = 1000
# Within this angle of each other two rows are mixed along the chord: the arc's formula would divide 0 by 0.
_NEAR = 1e-4


# How far past its ends an arc is followed.
_FARTHEST = 1000.0


def mean(
    embeddings: Rows, *, weights: Any = None, lengths: Lengths = "unit", present: Mapping[str, Any] | None = None
) -> Tensor:
    """Weighted mean of K rows, (B, D).

    Args:
        embeddings: modality -> (B, D) rows, or a sequence of them; (1, D) goes with every row of the others.
        weights: K numbers of at least 0, by name or in order; only their ratios count. None: equal ones.
        lengths: `unit` renormalises. `kept` leaves the mean inside the sphere, as the paper's (z_t + z_a) / 2
            (arXiv 2602.09507): of length sqrt((1 + cos) / 2) for two rows, the shorter the more they disagree.
        present: modality -> (B,) bool; absent rows leave the mean of their item, and may hold anything. In a
            sequence the modalities are `rows 0`, `rows 1` and so on.

    Raises:
        ShapeError: not (B, D), or of different sizes.
        ConfigError: weights of another number, negative, or all 0.
        NonFiniteError: a row is not finite or has no direction; an item has nothing present; rows cancel.
    """
    check_choice("lengths", lengths, ("unit", "kept"))
    names, z_KBD, present_KB = stack_rows(embeddings, present)
    weights_KB = mixing_weights(weights, names, z_KBD)[:, None] * present_KB.to(z_KBD)
    total_B = weights_KB.sum(0)
    _refuse(total_B <= 0, z_KBD[0], "has no weight: none of its modalities is present with a weight above 0")
    mixed_BD = ((weights_KB / total_B)[..., None] * z_KBD).sum(0)
    unit_BD = _unit(mixed_BD)  # also refuses what cancels
    return unit_BD if lengths == "unit" else mixed_BD


def linear_combination(terms: Sequence[tuple[float, Any]]) -> Tensor:
    """Arithmetic such as king - man + woman: the unit row of sum_k weight_k z_k, (B, D).

    Args:
        terms: (weight, (B, D) rows) pairs; weights are any finite numbers, of which only the ratios count.

    Raises:
        ShapeError, NonFiniteError: as in `mean`.
        ConfigError: not pairs, or weights that are not finite or all 0.
    """
    pairs = list(terms) if isinstance(terms, Sequence) else []
    if not pairs or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ConfigError("combine needs at least one (weight, rows) pair, such as [(1, king), (-1, man), (1, woman)]")
    names, z_KBD, _ = stack_rows({f"term {k}": rows for k, (_, rows) in enumerate(pairs)}, None)
    weights_K = finite_numbers([weight for weight, _ in pairs], len(names))
    if not bool(weights_K.any()):
        raise ConfigError("weights of the terms are all 0; nothing is left to combine")
    weights_K = shares(weights_K).to(z_KBD)
    return _unit((weights_K[:, None, None] * z_KBD).sum(0))


def slerp(a: Any, b: Any, t: Any) -> Tensor:
    """The point at fraction t of the arc from a to b (Shoemake 1985), sin((1 - t) w) / sin w a + sin(t w) / sin w b.

    Args:
        a, b: (B, D) rows, or (1, D).
        t: a number, or (T,) of them; outside [0, 1] the arc goes on.

    Returns:
        (B, D), or (T, B, D) for several t. At 0 and 1 a and b exactly, at 1/2 the renormalised mean.

    Raises:
        ShapeError, ConfigError: as in `mean`; t is not finite.
        NonFiniteError: as in `mean`, or rows are opposite, between which every arc is as short as any other.
    """
    _, z_2BD, _ = stack_rows({"a": a, "b": b}, None)
    numbers = finite_numbers(t, None)
    if numbers.ndim > 1:
        raise ConfigError(f"t has shape {tuple(numbers.shape)}; expected a number or (T,)")
    if bool((numbers.abs() > _FARTHEST).any()):
        raise ConfigError(f"t must lie between {-_FARTHEST:g} and {_FARTHEST:g}; beyond, angles have no digits left")
    out_TBD = _arc(z_2BD[0], z_2BD[1], numbers.reshape(-1).to(z_2BD))
    return out_TBD if numbers.ndim else out_TBD[0]


def interpolate(ends: Any, *, steps: int, path: Literal["slerp", "linear"] = "slerp") -> Tensor:
    """A path through waypoints, (steps, D) or (steps, B, D), evenly spaced in its parameter.

    Every leg takes the same share of the parameter, however long it is. Both ends are met exactly; a waypoint between
    them is where steps - 1 is a multiple of the K - 1 legs.

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
    waypoints = ends if ends.ndim == 3 else ends[:, None]
    _, z_KBD, _ = stack_rows({f"waypoint {k}": z_BD for k, z_BD in enumerate(waypoints)}, None)
    legs = len(z_KBD) - 1
    out = []
    for step in range(steps):
        leg, rest = divmod(step * legs, steps - 1)
        t = rest / (steps - 1)
        if rest == 0:
            out.append(z_KBD[leg])
        elif path == "linear":
            out.append(torch.lerp(z_KBD[leg], z_KBD[leg + 1], t))
        else:
            out.append(_arc(z_KBD[leg], z_KBD[leg + 1], z_KBD.new_tensor([t]))[0])
    z_TBD = torch.stack(out)
    return z_TBD if ends.ndim == 3 else z_TBD[:, 0]


def frechet_mean(
    embeddings: Rows, *, weights: Any = None, tolerance: float | None = None, iterations: int = 200
) -> Tensor:
    """The point of the sphere with the least weighted sum of squared angles (Buss & Fillmore 2001), (B, D).

    For two rows it is `slerp` at the second one's weight. It differs from the renormalised mean in how weights and
    distance act: a third of the weight is a third of the angle here, of the chord there, and a row far from the others
    pulls harder here. The two agree for rows close to each other, and for two rows of equal weight.

    Found by steps along the gradient from the renormalised mean. The derivative is that of the point itself, whatever
    the steps were; there is no second one.

    Args:
        embeddings, weights: as in `mean`.
        tolerance: the length in radians of the last step. None: 1e-12 for float64, 2e-6 for float32.
        iterations: steps of at most. Rows within a right angle of each other need about 15 for float32.

    Raises:
        ShapeError, ConfigError: as in `mean`, or an option is out of range.
        NonFiniteError: as in `mean`, or rows are spread so far that they have no barycentre of their own.
    """
    check_integer("iterations", iterations, low=1)
    if tolerance is not None:
        check_nonnegative("tolerance", tolerance)
    names, z_KBD, _ = stack_rows(embeddings, None)
    weights_K1 = mixing_weights(weights, names, z_KBD)[:, None]
    least = (1e-12 if z_KBD.dtype == torch.float64 else 2e-6) if tolerance is None else tolerance
    at_BD = _unit((weights_K1[..., None] * z_KBD).sum(0)).detach()
    still_B = at_BD.new_zeros(len(at_BD), dtype=torch.bool)
    with torch.no_grad():
        for _ in range(iterations):
            move_BD = _pull(at_BD, z_KBD, weights_K1)
            at_BD = _moved(at_BD, move_BD)
            still_B = _length(move_BD)[:, 0] <= least
            if bool(still_B.all()):
                break
    # One step of Newton's method more, at which the derivative is exact wherever the steps before came from.
    move_BD, narrow_B = _newton(at_BD, z_KBD, weights_K1)
    _refuse(~narrow_B, at_BD, "has rows spread too far around the sphere to have one barycentre; use `mean`")
    _refuse(
        ~still_B, at_BD, f"still moved by more than {least:g} after {iterations} steps; raise iterations, or tolerance"
    )
    return _moved(at_BD, move_BD)


def _pull(at_BD: Tensor, z_KBD: Tensor, weights_K1: Tensor) -> Tensor:
    """Weighted mean of the rows' directions, each as long as its angle: minus half the gradient of the squares."""
    side_KBD, ratio_KB, _ = _seen_from(at_BD, z_KBD)
    return ((weights_K1 * ratio_KB)[..., None] * side_KBD).sum(0)


def _newton(at_BD: Tensor, z_KBD: Tensor, weights_K1: Tensor) -> tuple[Tensor, Tensor]:
    """H^-1 of the pull, with H held fixed, and whether H is positive.

    H = c + sum_k w_k (1 - r_k) u_k u_k^T on the tangent space, with r = angle / tan(angle), c = sum_k w_k r_k and u the
    unit directions (Buss & Fillmore 2001). It is inverted through its K columns (Woodbury), not as D x D.
    """
    with torch.no_grad():
        side_KBD, ratio_KB, cos_KB = _seen_from(at_BD, z_KBD)
        level_KB = ratio_KB * cos_KB
        level_B = (weights_K1 * level_KB).sum(0)
        narrow_B = level_B > 1e-3
        level_B = torch.where(narrow_B, level_B, 1.0)
        scale_KB = (weights_K1 * (1 - level_KB).clamp_min(0)).sqrt()
        length_KB1 = _length(side_KBD)
        columns_BDK = (scale_KB[..., None] * side_KBD / torch.where(length_KB1 > 0, length_KB1, 1.0)).permute(1, 2, 0)
        eye_KK = torch.eye(len(z_KBD)).to(z_KBD)
        inner_BKK = level_B[:, None, None] * eye_KK + columns_BDK.mT @ columns_BDK
    pull_BD = _pull(at_BD, z_KBD, weights_K1)
    inside_BK1 = torch.linalg.solve(inner_BKK, columns_BDK.mT @ pull_BD[..., None])
    return (pull_BD - (columns_BDK @ inside_BK1)[..., 0]) / level_B[:, None], narrow_B


def _seen_from(at_BD: Tensor, z_KBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows' parts across a point, by how much those are shorter than the angle (at least 1), and the cosines."""
    cos_KB1 = (z_KBD * at_BD).sum(-1, keepdim=True)
    side_KBD = z_KBD - cos_KB1 * at_BD
    sin_KB1 = _length(side_KBD)
    angle_KB1 = torch.atan2(sin_KB1, cos_KB1)
    # angle / sin tends to 1 where a row is met; opposite to it the side is 0, whatever it is multiplied with.
    apart_KB1 = sin_KB1 > _NEAR**2
    ratio_KB1 = torch.where(apart_KB1, angle_KB1 / torch.where(apart_KB1, sin_KB1, 1.0), 1.0)
    return side_KBD, ratio_KB1[..., 0], cos_KB1[..., 0]


def _moved(at_BD: Tensor, move_BD: Tensor) -> Tensor:
    """The end of the geodesic that starts in a direction across, as long as that is."""
    length_B1 = _length(move_BD)
    return _unit(torch.cos(length_B1) * at_BD + torch.sinc(length_B1 / math.pi) * move_BD)


def _arc(a_BD: Tensor, b_BD: Tensor, t_T: Tensor) -> Tensor:
    apart_B, across_B = _length(a_BD - b_BD)[..., 0], _length(a_BD + b_BD)[..., 0]
    opposite_B = across_B < 2 * _ROUNDINGS * torch.finfo(a_BD.dtype).eps
    _refuse(opposite_B, a_BD, "is opposite to the row that it is mixed with; there is no shortest arc between them")
    # From chords, not arccos, which loses half of the digits near 1.
    angle_B = 2 * torch.atan2(apart_B, across_B)
    near_B = angle_B < _NEAR
    safe_B = torch.where(near_B, 1.0, angle_B)
    t_T1 = t_T[:, None]
    first_TB = torch.where(near_B, 1 - t_T1, torch.sin((1 - t_T1) * safe_B) / torch.sin(safe_B))
    second_TB = torch.where(near_B, t_T1, torch.sin(t_T1 * safe_B) / torch.sin(safe_B))
    z_TBD = first_TB[..., None] * a_BD + second_TB[..., None] * b_BD
    # The ends as they are, to the last bit.
    return torch.where(((t_T == 0) | (t_T == 1))[:, None, None], z_TBD, _unit(z_TBD))


def _length(x: Tensor) -> Tensor:
    """Norm over the last axis, kept, with a gradient of 0 rather than NaN at 0."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _unit(x: Tensor) -> Tensor:
    """Mixtures (..., D) of unit rows with shares that sum to about 1, made unit."""
    length = _length(x)
    short = length[..., 0] < _ROUNDINGS * torch.finfo(x.dtype).eps
    _refuse(short, x, "cancels: what is mixed points in opposite directions")
    return x / length


def _refuse(bad: Tensor, x: Tensor, what: str) -> None:
    first = first_bad_row(x, bad)
    if first is not None:
        raise NonFiniteError(f"row {first.row} of the mixture {what}{first.more}")
