"""Measure the conflict of the attractive and repulsive forces of a contrastive loss (paper Eq. 4; Props. 2.2, 2.3).

Phi includes the item's positive. In a well-trained space, the softmax probability of the positive is near 1, so Phi is
near V and zeta is near 1 for any good loss. A high `zeta` alone is therefore not a problem. `zeta_neg` excludes the
positive, and the `*_tan` fields use only the components tangent to the sphere.

Shapes: `M` modalities, `K` = M - 1 modalities other than the anchor, `B` items, `D` dimension. V and Phi are defined in
`_forces.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_number, check_temperature
from unialign.batch import Batch
from unialign.errors import ConfigError, ShapeError
from unialign.geometry._bounds import chi_lower_bound, expected_zeta, residual_correlation, zeta_lower_bound
from unialign.geometry._forces import Direction, forces
from unialign.geometry._validation import double_batch

# (query modality, key modality) -> weight w; 1 for missing pairs.
PairWeights = Mapping[tuple[str, str], float]

_PER_ITEM = ("zeta", "zeta_neg", "zeta_neg_renormalized", "zeta_tan", "zeta_neg_tan", "net_ratio", "chi")
_SCALARS = ("frac_c_nonpos", "residual_correlation", "chi_bound", "zeta_bound", "zeta_expected")
# Fields shown in the repr of a result.
_SHOWN = ("zeta", "zeta_neg", "chi", "net_ratio")

# A sum of vectors shorter than this fraction of their total length is rounding noise.
_FLOOR = 1e-10


@dataclass(frozen=True, eq=False, repr=False)
class ConflictResult:
    """Result of `conflict`; all tensors are float64. Per-item tensors have shape (B,) and are NaN where undefined.

    Attributes:
        anchor: the modality whose rows the forces act on.
        defined: (B,) bool, items with the anchor and at least one other modality; all fields of other items are NaN. A
            field is also NaN where one of its two forces vanishes.
        zeta: cos(V, Phi) in [-1, 1]; 1 means that the forces cancel.
        zeta_neg: cos(V, Phi without the positive), the degree to which the negatives oppose alignment.
        zeta_neg_renormalized: zeta_neg with a softmax over the negatives only. The value does not depend on the
            probability of the positive, so the negatives of all modalities have equal weight regardless of alignment.
        zeta_tan, zeta_neg_tan: zeta and zeta_neg of the components tangent to the sphere.
        net_ratio: |V - Phi| / (|V| + |Phi|) in [0, 1]; 0 means full cancellation.
        chi: 1 - |V| / sum_n |w_n z^n| in [0, 1]; 0 means that the positives agree.
        c: other modality n -> (B,) component of Phi_n along V / |V|; Proposition 2.2 assumes c >= c_0 > 0.
        frac_c_nonpos: fraction of defined c values that are at most 0.
        residual_correlation: mean <e_n, e_n'> over mean |e_n|^2, e_n = Phi_n - c_n V / |V|; Proposition 2.2 assumes 0.
            NaN for M = 2.
        chi_bound: lower bound of mean chi by Proposition 2.3 from the measured mean cosine of non-anchor positives.
        zeta_bound: lower bound of mean zeta by Proposition 2.2 from the smallest measured c and the mean |e_n|^2; valid
            for uncorrelated residuals. NaN if any c is at most 0, which violates the assumption.
        zeta_expected: estimate of mean zeta from the mean c, the mean |e_n|^2 and the measured residual correlation,
            which extends Proposition 2.2 to correlated residuals. The estimate is not a bound.
    """

    anchor: str
    defined: Tensor
    zeta: Tensor
    zeta_neg: Tensor
    zeta_neg_renormalized: Tensor
    zeta_tan: Tensor
    zeta_neg_tan: Tensor
    net_ratio: Tensor
    chi: Tensor
    c: dict[str, Tensor]
    frac_c_nonpos: Tensor
    residual_correlation: Tensor
    chi_bound: Tensor
    zeta_bound: Tensor
    zeta_expected: Tensor

    def __repr__(self) -> str:
        means = self.means()
        shown = ", ".join(f"{name}={means[name]:.4g}" for name in _SHOWN)
        return f"ConflictResult(anchor={self.anchor!r}, items={int(self.defined.sum())}, mean {shown})"

    def means(self) -> dict[str, float]:
        """Return the mean of each per-item field over its defined items, the scalar fields, and `c/<modality>`."""
        values = {name: float(getattr(self, name).nanmean()) for name in _PER_ITEM}
        values |= {f"c/{name}": float(c_B.nanmean()) for name, c_B in self.c.items()}
        return values | {name: float(getattr(self, name)) for name in _SCALARS}


@dataclass(frozen=True, eq=False, repr=False)
class AnchorsResult:
    """Result of `conflict_over_anchors`: one `ConflictResult` per anchor."""

    by_anchor: dict[str, ConflictResult]

    def __repr__(self) -> str:
        means = self.means()
        shown = ", ".join(f"{name}={means[name]:.4g}" for name in _SHOWN)
        return f"AnchorsResult(anchors={list(self.by_anchor)}, mean {shown})"

    def means(self) -> dict[str, float]:
        """Return `ConflictResult.means` averaged over the anchors with a defined value; NaN if there are none."""
        found: dict[str, list[float]] = {}
        for result in self.by_anchor.values():
            for name, value in result.means().items():
                found.setdefault(name, []).extend([] if math.isnan(value) else [value])
        return {name: math.fsum(values) / len(values) if values else math.nan for name, values in found.items()}


@torch.no_grad()
def conflict(
    embeddings: Mapping[str, Any],
    *,
    anchor: str,
    temperature: float = 0.07,
    direction: Direction = "forward",
    present: Mapping[str, Any] | None = None,
    weights: PairWeights | None = None,
) -> ConflictResult:
    """Measure the degree to which the forces of multimodal InfoNCE cancel at each row of the anchor (paper Eq. 4).

    Args:
        embeddings: modality -> (B, D) floating tensor or array.
        anchor: a modality.
        temperature: tau > 0.
        direction: `forward` uses the gradient of anchor -> others, as in the paper; `symmetric` adds the reverse
            direction of the symmetric loss.
        present: modality -> (B,) bool. Each item then uses only its present modalities, and the number of these
            modalities replaces M in the bounds. The keys of a modality are its present rows.
        weights: (query, key) -> weight w > 0 of the loss of this pair; 1 by default. V and Phi use pairs with the
            anchor as query; `symmetric` also uses pairs with the anchor as key.

    Returns:
        See `ConflictResult`. Memory is O(M * B * D), plus tiles of similarities of bounded size.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`; ConfigError also for an unknown
            anchor, direction or modality in `weights`, and for a temperature or weight that is not positive.
    """
    batch, weights_MM = _validate(embeddings, present, temperature, direction, weights)
    if anchor in ("all", "centroid", "leave_one_out") and anchor not in batch.names:
        raise ConfigError(f"conflict needs an anchor modality, got {anchor!r}; call conflict for each of {batch.names}")
    return _measure(batch, batch.index(anchor), temperature, direction, weights_MM)


@torch.no_grad()
def conflict_over_anchors(
    embeddings: Mapping[str, Any],
    *,
    temperature: float = 0.07,
    direction: Direction = "forward",
    present: Mapping[str, Any] | None = None,
    weights: PairWeights | None = None,
) -> AnchorsResult:
    """Compute `conflict` with each modality as the anchor; the paper reports means over items and anchors (Eq. 4).

    Args, Raises: see `conflict`; `direction`, `weights` and `present` apply to every anchor.
    """
    batch, weights_MM = _validate(embeddings, present, temperature, direction, weights)
    return AnchorsResult(
        {name: _measure(batch, a, temperature, direction, weights_MM) for a, name in enumerate(batch.names)}
    )


def _validate(
    embeddings: Any, present: Any, temperature: float, direction: Direction, weights: PairWeights | None
) -> tuple[Batch, Tensor]:
    """Return the batch in float64, and the weights w_mn of query modality m and key modality n."""
    check_choice("direction", direction, get_args(Direction))
    check_temperature(temperature)
    # Use float64 throughout: the net force of a trained space is a small difference of large forces.
    batch = double_batch(embeddings, present)
    if batch.z_MBD.shape[1] == 0:
        raise ShapeError("conflict needs at least one item, got embeddings with 0 rows")
    weights_MM = batch.z_MBD.new_ones(len(batch.names), len(batch.names))
    if weights is None:
        return batch, weights_MM
    if not isinstance(weights, Mapping):
        raise ConfigError(f"weights must be a mapping of (query, key) to a number, got {type(weights).__name__}")
    for pair, weight in weights.items():
        known = isinstance(pair, tuple) and len(pair) == 2 and all(name in batch.names for name in pair)
        if not known or pair[0] == pair[1]:
            raise ConfigError(
                f"weights has the key {pair!r}; expected pairs (query, key) of two of the modalities {batch.names}"
            )
        check_number(f"weights[{pair!r}]", weight, "a positive finite number", lambda w: 0 < w < math.inf)
        weights_MM[batch.names.index(pair[0]), batch.names.index(pair[1])] = float(weight)
    return batch, weights_MM


def _measure(batch: Batch, a: int, temperature: float, direction: Direction, weights_MM: Tensor) -> ConflictResult:
    others = [m for m in range(len(batch.names)) if m != a]
    f = forces(batch, a, others, temperature=temperature, direction=direction, weights_MM=weights_MM)
    z_BD = batch.z_MBD[a]
    length_KB = torch.linalg.vector_norm(f.pull_KBD, dim=-1)
    pull_BD, push_BD, neg_BD = f.pull_KBD.sum(0), f.push_KBD.sum(0), f.push_neg_KBD.sum(0)
    renorm_BD = f.push_renorm_KBD.sum(0)
    reach_B, mass_neg_B = length_KB.sum(0), f.mass_neg_KB.sum(0)
    pull_B = torch.linalg.vector_norm(pull_BD, dim=-1)
    push_B = torch.linalg.vector_norm(push_BD, dim=-1)
    defined_B = f.pair_KB.any(0)
    unit_BD = pull_BD / torch.where(pull_B > _FLOOR * reach_B, pull_B, torch.nan)[:, None]
    c_KB = torch.where(f.pair_KB, (f.push_KBD * unit_BD).sum(-1), torch.nan)
    residual_KBD = f.push_KBD - c_KB[..., None] * unit_BD
    known_KB = ~torch.isnan(c_KB)
    c_known = c_KB[known_KB]
    return ConflictResult(
        anchor=batch.names[a],
        defined=defined_B,
        zeta=_cosine(pull_BD, push_BD, reach_B, reach_B),
        zeta_neg=_cosine(pull_BD, neg_BD, reach_B, mass_neg_B),
        zeta_neg_renormalized=_cosine(pull_BD, renorm_BD, reach_B, f.mass_renorm_KB.sum(0)),
        zeta_tan=_cosine(_tangent(pull_BD, z_BD), _tangent(push_BD, z_BD), reach_B, reach_B),
        zeta_neg_tan=_cosine(_tangent(pull_BD, z_BD), _tangent(neg_BD, z_BD), reach_B, mass_neg_B),
        net_ratio=torch.linalg.vector_norm(pull_BD - push_BD, dim=-1) / _positive(pull_B + push_B),
        chi=(1 - pull_B / _positive(reach_B)).clamp(min=0.0),
        c={batch.names[m]: c_B for m, c_B in zip(others, c_KB, strict=True)},
        frac_c_nonpos=(c_known <= 0).double().mean(),
        residual_correlation=residual_correlation(residual_KBD, known_KB),
        chi_bound=chi_lower_bound(f.pull_KBD, f.pair_KB),
        zeta_bound=zeta_lower_bound(c_KB, residual_KBD, known_KB),
        zeta_expected=expected_zeta(c_KB, residual_KBD, known_KB),
    )


def _tangent(x_BD: Tensor, z_BD: Tensor) -> Tensor:
    """Return x - <x, z> z for unit z, the tangential component of a force."""
    return x_BD - (x_BD * z_BD).sum(-1, keepdim=True) * z_BD


def _cosine(x_BD: Tensor, y_BD: Tensor, x_size_B: Tensor, y_size_B: Tensor) -> Tensor:
    """Return cosines; NaN where either vector is a sum whose terms cancel up to rounding errors."""
    x_B, y_B = torch.linalg.vector_norm(x_BD, dim=-1), torch.linalg.vector_norm(y_BD, dim=-1)
    sound_B = (x_B > _FLOOR * x_size_B) & (y_B > _FLOOR * y_size_B)
    # Normalize first: forces of distant negatives can be as small as 1e-200, and the product of two such numbers
    # underflows.
    x_BD = x_BD / torch.where(sound_B, x_B, torch.nan)[:, None]
    return (x_BD * y_BD / torch.where(sound_B, y_B, torch.nan)[:, None]).sum(-1).clamp(-1.0, 1.0)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.nan)
