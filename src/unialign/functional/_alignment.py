"""Compute the alignment of true pairs: to an anchor, between all modalities, or to the centroid (paper Eqs. 10, 14).

Shapes: `M` modalities, `B` items, `D` dimension, `P` pairs.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_number
from unialign._single_backward import first_order_only
from unialign.batch import Batch, make_batch
from unialign.errors import ConfigError
from unialign.functional._centroid import unit_centroids, unit_or_zero
from unialign.functional._order_free_sum import order_free_sum
from unialign.ops import WANG_ISOLA_T, Kernel, arccos_squared, current_backend

Distance = Literal["euclidean", "geodesic"]
StopGradient = Literal["none", "anchor"]


def alignment(
    embeddings: Mapping[str, Tensor],
    *,
    anchor: str,
    scale: float = 1.0,
    distance: Distance = "euclidean",
    stop_gradient: StopGradient = "none",
    present: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return `scale` times the mean squared distance of true pairs (paper Eq. 10).

    The mean squared Euclidean distance of unit rows is 2 - 2 * mean cosine.

    Args:
        embeddings: modality -> (B, D); rows are normalized here.
        anchor: a modality (only pairs that contain this modality), `"all"` (all pairs), or `"centroid"` (pairs of each
            present vector and the normalized mean of all present vectors of the same item), or `"leave_one_out"` (pairs
            of each present vector and the normalized mean of the other present vectors of the same item).
        scale: factor of the mean; `1 / (2 tau)` balances the uniformity with the `clip` kernel.
        distance: `euclidean` |x-y|^2, or `geodesic` arccos^2 (paper Eq. 14).
        stop_gradient: `anchor` detaches the anchor (or mean), so only the other side of each pair gets a gradient.
        present: modality -> (B,) bool. The mean is taken over the pairs with both modalities present.

    Returns:
        A scalar in [0, 4 * scale] (euclidean) or [0, pi^2 * scale] (geodesic); 0 with zero gradient if there are no
        pairs.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`; an unknown anchor, distance or
            stop_gradient.
    """
    check_number("scale", scale, "a finite number", math.isfinite)
    check_choice("distance", distance, get_args(Distance))
    check_choice("stop_gradient", stop_gradient, get_args(StopGradient))
    batch = make_batch(embeddings, present=present)
    value, _ = unit_alignment(batch, anchor=anchor, distance=distance, stop_gradient=stop_gradient)
    return scale * value


def unit_alignment(
    batch: Batch,
    *,
    anchor: str,
    distance: Distance = "euclidean",
    stop_gradient: StopGradient = "none",
    alpha: float = 2.0,
    scales: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the `alignment` of a validated batch, and whether there are any pairs.

    The result is the mean of |x - y|^alpha with the exponent `alpha` >= 1 (Wang & Isola 2020).

    Args:
        scales: factors of the terms, all 1 by default. For the anchor "all", one factor per pair of modalities, in the
            order (0, 1), (0, 2), ..., (1, 2), ...; for a modality as anchor, one factor per other modality; for
            "centroid" and "leave_one_out", one factor per modality.
    """
    if anchor == "all" and stop_gradient != "none":
        raise ConfigError('stop_gradient="anchor" needs an anchor modality or "centroid", got "all"')
    plain = distance == "euclidean" and alpha == 2 and scales is None and current_backend() != "reference"
    if anchor == "all" and plain and len(batch.names) > 2:
        return _all_pairs(batch)
    modalities, present_MB = range(len(batch.names)), batch.present_MB
    if anchor == "centroid":
        x_PBD = batch.z_MBD
        centroid_BD, defined_B = unit_centroids(batch)
        y_PBD = centroid_BD[None].expand_as(x_PBD)
        # Skip items whose centroid is undefined because their vectors cancel.
        pairs_PB = present_MB & (present_MB.sum(0) >= 2) & defined_B
    elif anchor == "leave_one_out":
        x_PBD = batch.z_MBD
        y_PBD, defined_PB = _means_of_others(batch.z_MBD)
        pairs_PB = present_MB & defined_PB
    elif anchor == "all":
        left, right = zip(*combinations(modalities, 2), strict=True)
        x_PBD, y_PBD = (torch.stack([batch.rows(m) for m in side]) for side in (left, right))
        pairs_PB = present_MB[[*left]] & present_MB[[*right]]
    else:
        a = batch.index(anchor)
        others = [m for m in modalities if m != a]
        x_PBD, y_PBD = torch.stack([batch.rows(m) for m in others]), batch.rows(a)[None].expand(len(others), -1, -1)
        pairs_PB = present_MB[others] & present_MB[a]
    if stop_gradient == "anchor":
        y_PBD = y_PBD.detach()
    if distance == "geodesic":
        square_PB = arccos_squared((x_PBD * y_PBD).sum(-1))
    else:
        square_PB = ((x_PBD - y_PBD) ** 2).sum(-1)
    power_PB = _power(square_PB, alpha)
    sum_P = torch.where(pairs_PB, power_PB, 0.0).sum(1)
    total = order_free_sum(sum_P if scales is None else sum_P * sum_P.new_tensor(scales))
    return _mean(total, pairs_PB.sum())


def _means_of_others(z_MBD: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit means of the other modalities, and the (M, B) mask of those that are defined."""
    modalities = range(len(z_MBD))
    sums = [order_free_sum(torch.stack([z_MBD[n] for n in modalities if n != m])) for m in modalities]
    means, defined = zip(*map(unit_or_zero, sums), strict=True)
    return torch.stack(means), torch.stack(defined)


def _all_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean of |x - y|^2 over all pairs of present vectors of an item, with a closed-form gradient."""
    present_B = batch.present_MB.sum(0)
    total: Tensor = _PairSquares.apply(batch.z_MBD, batch.present_MB, present_B)  # type: ignore[no-untyped-call]
    return _mean(total, (present_B * (present_B - 1)).sum() // 2)


class _PairSquares(torch.autograd.Function):
    """Sum of |x - y|^2 over all pairs of present vectors of an item.

    For k vectors with mean c, the sum is k sum_m |z_m - c|^2, which has M terms instead of M (M - 1) / 2 and is as
    precise for nearly equal vectors. Its derivative with respect to z_m is 2 k (z_m - c).
    """

    @staticmethod
    def forward(ctx: Any, z_MBD: Tensor, present_MB: Tensor, present_B: Tensor) -> Tensor:
        count_B = present_B.to(z_MBD.dtype)
        center_BD = order_free_sum(z_MBD) / count_B.clamp(min=1)[:, None]  # absent rows are 0
        offset_MBD = z_MBD - center_BD
        if not present_MB.all():
            offset_MBD *= present_MB[..., None]
        ctx.save_for_backward(z_MBD, offset_MBD, count_B)
        return order_free_sum(((offset_MBD * offset_MBD).sum(-1) * count_B).sum(1))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        z_MBD, offset_MBD, count_B = ctx.saved_tensors
        with torch.no_grad():
            gradient_MBD = offset_MBD * (2 * g * count_B)[:, None]
        return first_order_only(gradient_MBD, g, z_MBD), None, None


def _mean(total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Also return whether there is anything to average."""
    return total / count.clamp(min=1), count > 0


def matched_alignment_scale(kernel: Kernel, temperature: float) -> float:
    """Return the factor of |x-y|^2 in -log kappa, which balances alignment and uniformity as in InfoNCE."""
    if kernel == "clip":
        return 1 / (2 * temperature)
    if kernel == "wang_isola":
        return WANG_ISOLA_T
    return 1 / (2 * temperature**2)


def _power(square: Tensor, alpha: float) -> Tensor:
    """The gradient is 0 instead of infinity at x = y."""
    if alpha == 2:
        return square
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0) ** (alpha / 2), 0.0)
