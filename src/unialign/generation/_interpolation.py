"""Mix rows on the unit sphere.

All functions normalize their rows first, are differentiable, and compute in float32 or float64.

Shapes: `K` inputs, `B` rows, `D` dimension of the space, `T` steps of a path.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer
from unialign._invalid_rows import first_bad_row
from unialign.batch import as_dense
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.generation._interpolation_inputs import (
    InterpolationInputs,
    finite_numbers,
    make_mixing_batch,
    mixing_weights,
    normalized_weights,
)

# A mixture whose norm is below this multiple of the machine epsilon has no reliable direction.
_ROUNDINGS = 1000
# Below this angle, interpolate linearly, since the formula of the arc tends to 0 / 0.
_NEAR = 1e-4
_MAX_T = 1000.0
# Maximum number of steps for a Fréchet mean; rows at most a right angle apart need about 15 in float32.
_MAX_STEPS = 200


def mean(
    embeddings: InterpolationInputs,
    *,
    weights: Any = None,
    normalize: bool = True,
    present: Mapping[str, Any] | None = None,
) -> Tensor:
    """Compute the weighted mean of K inputs, of shape (B, D).

    Args:
        embeddings: mapping of modality to rows (B, D), or a sequence of such rows; (1, D) is broadcast.
        weights: K nonnegative numbers, as a mapping or a sequence; only their ratios matter. None: equal weights.
        normalize: whether to return unit rows. An unnormalized mean has norm at most 1; for the paper's (z_t + z_a) / 2
            (arXiv 2602.09507), the norm is sqrt((1 + cos) / 2).
        present: mapping of modality to a mask (B,); absent rows are excluded and may have any values. The inputs of a
            sequence are named `rows 0`, `rows 1` and so on.

    Raises:
        ShapeError: inputs are not of shape (B, D), or their shapes differ.
        ConfigError: the number of weights is wrong, or weights are negative or all 0.
        NonFiniteError: a row is not finite or is 0, an item has no present modality, or the mean of an item is 0.
    """
    check_choice("normalize", normalize, (True, False))
    batch = make_mixing_batch(embeddings, present)
    z_KBD = batch.z_MBD
    weights_KB = mixing_weights(weights, batch)[:, None] * batch.present_MB.to(z_KBD)
    total_B = weights_KB.sum(0)
    _raise_for(total_B <= 0, z_KBD[0], "has no weight, since none of its modalities is present with a weight above 0")
    mixed_BD = ((weights_KB / total_B)[..., None] * z_KBD).sum(0)
    unit_BD = _unit(mixed_BD)  # Raises if the rows cancel.
    return unit_BD if normalize else mixed_BD


def linear_combination(terms: Sequence[tuple[float, Any]]) -> Tensor:
    """Compute the normalized sum_k weight_k z_k, of shape (B, D), such as king - man + woman.

    Args:
        terms: pairs of a weight and rows (B, D). Weights are finite numbers; only their ratios matter.

    Raises:
        ShapeError, NonFiniteError: as in `mean`.
        ConfigError: terms are not pairs, or weights are not finite or all 0.
    """
    pairs = list(terms) if isinstance(terms, Sequence) else []
    if not pairs or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ConfigError("expected at least one (weight, rows) pair, such as [(1, king), (-1, man), (1, woman)]")
    z_KBD = make_mixing_batch({f"term {k}": rows for k, (_, rows) in enumerate(pairs)}).z_MBD
    weights_K = finite_numbers([weight for weight, _ in pairs], len(pairs))
    if not bool(weights_K.any()):
        raise ConfigError("the weights of the terms must not be all 0")
    weights_K = normalized_weights(weights_K).to(z_KBD)
    return _unit((weights_K[:, None, None] * z_KBD).sum(0))


def slerp(a: Any, b: Any, t: Any) -> Tensor:
    """Interpolate spherically between rows (Shoemake 1985).

    The formula is (sin((1 - t) w) a + sin(t w) b) / sin w, where w is the angle of a and b.

    Args:
        a, b: rows of shape (B, D) or (1, D).
        t: a number, or T numbers; values outside [0, 1] extrapolate along the arc.

    Returns:
        Unit rows of shape (B, D), or (T, B, D) if t is a sequence. They equal a exactly at t = 0, b exactly at t = 1,
        and the renormalized mean at t = 1/2.

    Raises:
        ShapeError: as in `mean`.
        ConfigError: t is not a number or a sequence of numbers, or not finite, or out of range.
        NonFiniteError: a row is not finite or is 0, or two rows are opposite, so that the arc is not unique.
    """
    z_2BD = make_mixing_batch({"a": a, "b": b}).z_MBD
    numbers = finite_numbers(t, None)
    if numbers.ndim > 1:
        raise ConfigError(f"t has shape {tuple(numbers.shape)}; expected a number or (T,)")
    if bool((numbers.abs() > _MAX_T).any()):
        raise ConfigError(f"t must be between {-_MAX_T:g} and {_MAX_T:g}; larger values lose all precision")
    out_TBD = _slerp(z_2BD[0], z_2BD[1], numbers.reshape(-1).to(z_2BD))
    return out_TBD if numbers.ndim else out_TBD[0]


def interpolate(ends: Any, *, steps: int) -> Tensor:
    """Interpolate along arcs through waypoints; the result has shape (T, D) or (T, B, D).

    Each of the K - 1 arcs gets the same fraction of the steps, whatever its length. The endpoints are exact, as
    are the inner waypoints if steps - 1 is a multiple of K - 1.

    Args:
        ends: K waypoints of shape (K, D) or (K, B, D), at least 2.
        steps: number T of steps, at least 2.

    Raises:
        ShapeError, ConfigError, NonFiniteError: as in `slerp`.
    """
    check_integer("steps", steps, low=2)
    ends = as_dense(ends, "ends", "(K, D) or (K, B, D)")
    if ends.ndim not in (2, 3) or len(ends) < 2:
        raise ShapeError(f"ends have shape {tuple(ends.shape)}; expected (K, D) or (K, B, D) with at least 2 waypoints")
    waypoints = ends if ends.ndim == 3 else ends[:, None]
    z_KBD = make_mixing_batch({f"waypoint {k}": z_BD for k, z_BD in enumerate(waypoints)}).z_MBD
    legs = len(z_KBD) - 1
    out = []
    for step in range(steps):
        leg, rest = divmod(step * legs, steps - 1)
        t_1 = z_KBD.new_tensor([rest / (steps - 1)])
        out.append(_slerp(z_KBD[leg], z_KBD[leg + 1], t_1)[0] if rest else z_KBD[leg])
    z_TBD = torch.stack(out)
    return z_TBD if ends.ndim == 3 else z_TBD[:, 0]


def frechet_mean(embeddings: InterpolationInputs, *, weights: Any = None) -> Tensor:
    """Compute the Fréchet mean (Buss & Fillmore 2001), which minimizes the weighted sum of squared angles.

    The result has shape (B, D). For two rows, the mean equals `slerp` at the second row's weight: weights are fractions
    of the angle, not of the chord as in the renormalized mean, and distant rows have more influence. The mean is
    computed by gradient steps from the renormalized mean and a final Newton step. First derivatives are exact; second
    derivatives are not supported.

    Args and errors are those of `mean`; NonFiniteError is also raised if the rows are spread too far for a unique mean.
    """
    batch = make_mixing_batch(embeddings)
    z_KBD, weights_K1 = batch.z_MBD, mixing_weights(weights, batch)[:, None]
    tolerance = 1e-12 if z_KBD.dtype == torch.float64 else 2e-6  # radians
    at_BD = _unit((weights_K1[..., None] * z_KBD).sum(0)).detach()
    converged_B = at_BD.new_zeros(len(at_BD), dtype=torch.bool)
    with torch.no_grad():
        for _ in range(_MAX_STEPS):
            step_BD = _tangent_mean(at_BD, z_KBD, weights_K1)
            at_BD = _exp_map(at_BD, step_BD)
            converged_B = _norm(step_BD)[:, 0] <= tolerance
            if bool(converged_B.all()):
                break
    # Differentiate only the Newton step, since the derivative of this step does not depend on earlier steps.
    step_BD, narrow_B = _newton(at_BD, z_KBD, weights_K1)
    _raise_for(~narrow_B, at_BD, "has rows spread too far around the sphere for a unique Fréchet mean; use `mean`")
    _raise_for(~converged_B, at_BD, f"still moved by more than {tolerance:g} after {_MAX_STEPS} steps; use `mean`")
    return _exp_map(at_BD, step_BD)


def _tangent_mean(at_BD: Tensor, z_KBD: Tensor, weights_K1: Tensor) -> Tensor:
    """Return the weighted mean of the rows in the tangent space, which is -1/2 times the gradient of the objective."""
    side_KBD, ratio_KB, _ = _log_map(at_BD, z_KBD)
    return ((weights_K1 * ratio_KB)[..., None] * side_KBD).sum(0)


def _newton(at_BD: Tensor, z_KBD: Tensor, weights_K1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Newton step H^-1 g for the tangent mean g, and whether H is positive definite.

    On the tangent space, H = c + sum_k w_k (1 - r_k) u_k u_k^T, where r = angle / tan(angle), c = sum_k w_k r_k and u_k
    are the unit directions (Buss & Fillmore 2001). H is treated as constant in the derivative and inverted by the
    Woodbury identity, which needs a K x K instead of a D x D system.
    """
    with torch.no_grad():
        side_KBD, ratio_KB, cos_KB = _log_map(at_BD, z_KBD)
        level_KB = ratio_KB * cos_KB
        level_B = (weights_K1 * level_KB).sum(0)
        narrow_B = level_B > 1e-3
        level_B = torch.where(narrow_B, level_B, 1.0)
        scale_KB = (weights_K1 * (1 - level_KB).clamp_min(0)).sqrt()
        length_KB1 = _norm(side_KBD)
        columns_BDK = (scale_KB[..., None] * side_KBD / torch.where(length_KB1 > 0, length_KB1, 1.0)).permute(1, 2, 0)
        eye_KK = torch.eye(len(z_KBD)).to(z_KBD)
        inner_BKK = level_B[:, None, None] * eye_KK + columns_BDK.mT @ columns_BDK
    pull_BD = _tangent_mean(at_BD, z_KBD, weights_K1)
    inside_BK1 = torch.linalg.solve(inner_BKK, columns_BDK.mT @ pull_BD[..., None])
    return (pull_BD - (columns_BDK @ inside_BK1)[..., 0]) / level_B[:, None], narrow_B


def _log_map(at_BD: Tensor, z_KBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tangential parts of the rows, their scale factors angle / sin(angle), and the cosines."""
    cos_KB1 = (z_KBD * at_BD).sum(-1, keepdim=True)
    side_KBD = z_KBD - cos_KB1 * at_BD
    sin_KB1 = _norm(side_KBD)
    angle_KB1 = torch.atan2(sin_KB1, cos_KB1)
    # angle / sin(angle) tends to 1 as the angle tends to 0; at the opposite point, the tangential part is 0.
    apart_KB1 = sin_KB1 > _NEAR**2
    ratio_KB1 = torch.where(apart_KB1, angle_KB1 / torch.where(apart_KB1, sin_KB1, 1.0), 1.0)
    return side_KBD, ratio_KB1[..., 0], cos_KB1[..., 0]


def _exp_map(at_BD: Tensor, step_BD: Tensor) -> Tensor:
    """Return the end point of the geodesic of a tangent vector."""
    length_B1 = _norm(step_BD)
    return _unit(torch.cos(length_B1) * at_BD + torch.sinc(length_B1 / math.pi) * step_BD)


def _slerp(a_BD: Tensor, b_BD: Tensor, t_T: Tensor) -> Tensor:
    apart_B, across_B = _norm(a_BD - b_BD)[..., 0], _norm(a_BD + b_BD)[..., 0]
    opposite_B = across_B < 2 * _ROUNDINGS * torch.finfo(a_BD.dtype).eps
    _raise_for(opposite_B, a_BD, "is opposite to the other row, so the arc between them is not unique")
    # Compute the angle from chords, since arccos loses half of the digits near 1.
    angle_B = 2 * torch.atan2(apart_B, across_B)
    near_B = angle_B < _NEAR
    safe_B = torch.where(near_B, 1.0, angle_B)
    t_T1 = t_T[:, None]
    first_TB = torch.where(near_B, 1 - t_T1, torch.sin((1 - t_T1) * safe_B) / torch.sin(safe_B))
    second_TB = torch.where(near_B, t_T1, torch.sin(t_T1 * safe_B) / torch.sin(safe_B))
    z_TBD = first_TB[..., None] * a_BD + second_TB[..., None] * b_BD
    # Return the endpoints bitwise exactly.
    return torch.where(((t_T == 0) | (t_T == 1))[:, None, None], z_TBD, _unit(z_TBD))


def _norm(x: Tensor) -> Tensor:
    """Return the norms of rows; the gradient at 0 is 0 instead of NaN."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _unit(x: Tensor) -> Tensor:
    length = _norm(x)
    short = length[..., 0] < _ROUNDINGS * torch.finfo(x.dtype).eps
    _raise_for(short, x, "cancels, since the mixed rows point in opposite directions")
    return x / length


def _raise_for(bad: Tensor, x: Tensor, what: str) -> None:
    if first := first_bad_row(x, bad):
        raise NonFiniteError(f"row {first.row} of the mixture {what}{first.more}")
