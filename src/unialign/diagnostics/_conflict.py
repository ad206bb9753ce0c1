"""Do the forces of a contrastive loss work against each other? (paper Eq. 3, 4; Propositions 2.2, 2.3.)

Shapes: `M` modalities, `K` = M - 1 of them other than the anchor, `B` items, `D` width, `c` items of one tile.

The gradient of sum_n l_{a->n} at an anchor row z_i^a is -V + Phi (constant factors dropped, keys held fixed):

    V   = sum_n z_i^n / tau                       pulls towards the item's other modalities
    Phi = sum_n (1 / tau) sum_k p_ik^n z_k^n      pushes away from what the softmax p of the batch looks at

Phi includes the item's own positive. A well-trained space has p_ii near 1, so Phi comes near V and zeta near 1 for
every good loss: `zeta` alone is no evidence of harm. `zeta_neg` leaves the own positive out, `*_tan` keeps only the
part of the forces that can move a point on the sphere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_temperature
from unialign.diagnostics._bounds import chi_lower_bound, residual_correlation, zeta_lower_bound
from unialign.embeddings import Batch, make_batch
from unialign.errors import ConfigError, ShapeError

__all__ = ["ConflictResult", "Direction", "Forces", "conflict", "forces"]

Direction = Literal["forward", "symmetric"]
PER_ITEM = ("zeta", "zeta_neg", "zeta_tan", "zeta_neg_tan", "net_ratio", "chi")

# A sum of vectors shorter than this share of their lengths has cancelled: what is left is rounding, without direction.
_FLOOR = 1e-10
# Most similarities in a tile (32 MiB of float64).
_TILE = 2**22


@dataclass(frozen=True, eq=False)
class ConflictResult:
    """What `conflict` measured, float64. Per-item tensors are (B,) and NaN where undefined.

    Attributes:
        anchor: the modality at whose rows the forces act.
        defined: (B,) bool, the items with the anchor and another modality; the others are NaN throughout. A single
            field is NaN also where one of its two forces vanishes.
        zeta: cos(V, Phi) in [-1, 1]; 1 = the forces cancel.
        zeta_neg: cos(V, Phi without the own positive): do the negatives oppose alignment?
        zeta_tan, zeta_neg_tan: the same between the parts tangent to the sphere.
        net_ratio: |V - Phi| / (|V| + |Phi|) in [0, 1]; 0 = full cancellation.
        chi: 1 - |V| / sum_n |w_n z^n| in [0, 1]; 0 = the positives agree.
        c: other modality -> (B,) component of its Phi_n along V / |V|; Proposition 2.2 assumes it above some c_0 > 0.
        frac_c_nonpos: share of the defined c that are not above 0.
        residual_correlation: mean <e_n, e_n'> over mean |e_n|^2, e_n = Phi_n - c_n V / |V|; assumed 0. NaN at M = 2.
        chi_bound: lower bound of mean chi by Proposition 2.3 from the measured mean cosine of non-anchor positives.
        zeta_bound: lower bound of mean zeta by Proposition 2.2 from the smallest measured c and the mean |e_n|^2; holds
            if the residuals are uncorrelated. NaN where a c is not above 0: then the assumption fails.
    """

    anchor: str
    defined: Tensor
    zeta: Tensor
    zeta_neg: Tensor
    zeta_tan: Tensor
    zeta_neg_tan: Tensor
    net_ratio: Tensor
    chi: Tensor
    c: dict[str, Tensor]
    frac_c_nonpos: Tensor
    residual_correlation: Tensor
    chi_bound: Tensor
    zeta_bound: Tensor

    def means(self) -> dict[str, float]:
        """Mean over the items where it is defined of every per-item field, the scalars, and `c/<modality>`."""
        values = {name: float(getattr(self, name).nanmean()) for name in PER_ITEM}
        values |= {f"c/{name}": float(c_B.nanmean()) for name, c_B in self.c.items()}
        scalars = ("frac_c_nonpos", "residual_correlation", "chi_bound", "zeta_bound")
        return values | {name: float(getattr(self, name)) for name in scalars}

    def quantiles(self, field: str, levels: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> list[float]:
        """Quantiles of a per-item field over the items where it is defined; NaN if there are none."""
        check_choice("field", field, PER_ITEM)
        values_B: Tensor = getattr(self, field)
        found: list[float] = torch.nanquantile(values_B, values_B.new_tensor(levels)).tolist()
        return found


@dataclass(frozen=True, eq=False)
class Forces:
    """Forces at each anchor row; rows without anchor or without that modality are 0.

    Attributes:
        pull_KBD: (weight / tau) z^n, whose sum over n is V.
        push_KBD: Phi_n, own positive included.
        push_neg_KBD: Phi_n without it, the softmax not renormalised.
        mass_neg_KB: length of `push_neg_KBD` if all negatives pointed one way.
        pair_KB: whether item i has both anchor and modality n.
    """

    pull_KBD: Tensor
    push_KBD: Tensor
    push_neg_KBD: Tensor
    mass_neg_KB: Tensor
    pair_KB: Tensor


@torch.no_grad()
def conflict(
    embeddings: Mapping[str, Tensor],
    *,
    anchor: str,
    temperature: float = 0.07,
    direction: Direction = "forward",
    present: Mapping[str, Tensor] | None = None,
) -> ConflictResult:
    """How far the forces of multimodal InfoNCE cancel at the anchor's rows, item by item (paper Eq. 4).

    Args:
        embeddings: modality -> (B, D) floating tensor.
        anchor: a modality.
        temperature: tau > 0.
        direction: `forward` uses the gradient of anchor -> others, as the paper does; `symmetric` adds the reverse
            direction, which the usual symmetric loss has.
        present: modality -> (B,) bool. Sums run over the modalities that an item has, keys over the items that have the
            modality; the M of the bounds is then the item's own.

    Returns:
        See `ConflictResult`. Memory is O(M * B * D), bounded tiles of similarities apart.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.embeddings.make_batch`; ConfigError also for an unknown
            anchor or direction, or a temperature that is not above 0.
    """
    check_choice("direction", direction, get_args(Direction))
    check_temperature(temperature)
    # The net force of a trained space is a small difference of large forces: float64 throughout.
    wide = {name: _double(z) for name, z in embeddings.items()} if isinstance(embeddings, Mapping) else embeddings
    batch = make_batch(wide, present=present)
    if batch.z_MBD.shape[1] == 0:
        raise ShapeError("conflict needs at least one item, got embeddings of 0 rows")
    if anchor in ("all", "centroid") and anchor not in batch.names:
        raise ConfigError(
            f"conflict acts at the rows of one modality, got anchor {anchor!r}; call it for each of {batch.names}"
        )
    a = batch.index(anchor)
    others = [m for m in range(len(batch.names)) if m != a]
    f = forces(batch, a, others, temperature=temperature, direction=direction)

    z_BD = batch.z_MBD[a]
    length_KB = torch.linalg.vector_norm(f.pull_KBD, dim=-1)
    pull_BD, push_BD, neg_BD = f.pull_KBD.sum(0), f.push_KBD.sum(0), f.push_neg_KBD.sum(0)
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
        anchor=anchor,
        defined=defined_B,
        zeta=_cosine(pull_BD, push_BD, reach_B, reach_B),
        zeta_neg=_cosine(pull_BD, neg_BD, reach_B, mass_neg_B),
        zeta_tan=_cosine(_tangent(pull_BD, z_BD), _tangent(push_BD, z_BD), reach_B, reach_B),
        zeta_neg_tan=_cosine(_tangent(pull_BD, z_BD), _tangent(neg_BD, z_BD), reach_B, mass_neg_B),
        net_ratio=torch.linalg.vector_norm(pull_BD - push_BD, dim=-1) / _positive(pull_B + push_B),
        chi=(1 - pull_B / _positive(reach_B)).clamp(min=0.0),
        c={batch.names[m]: c_B for m, c_B in zip(others, c_KB, strict=True)},
        frac_c_nonpos=(c_known <= 0).double().mean(),
        residual_correlation=residual_correlation(residual_KBD, known_KB),
        chi_bound=chi_lower_bound(f.pull_KBD / _positive(length_KB)[..., None], f.pair_KB),
        zeta_bound=zeta_lower_bound(c_KB, residual_KBD, known_KB),
    )


def forces(batch: Batch, a: int, others: list[int], *, temperature: float, direction: Direction) -> Forces:
    """V and Phi per modality at every row of modality `a` (paper Eq. 3; `symmetric` adds the reverse terms)."""
    anchor_BD, has_B = batch.z_MBD[a], batch.present_MB[a]
    weight = (2.0 if direction == "symmetric" else 1.0) / temperature
    pair_KB = batch.present_MB[others] & has_B
    pull_KBD = torch.where(pair_KB[..., None], weight * batch.z_MBD[others], 0.0)
    push_neg_KBD, own_KB = torch.zeros_like(pull_KBD), torch.zeros_like(pull_KBD[..., 0])
    mass_neg_KB = torch.zeros_like(own_KB)
    step = max(1, _TILE // max(1, len(anchor_BD)))
    for k, m in enumerate(others):
        key_BD = batch.z_MBD[m]
        log_norm_B = None
        if direction == "symmetric":
            log_norm_B = _log_partitions(key_BD, anchor_BD, has_B, temperature, step)
        for start in range(0, len(anchor_BD), step):
            tile = slice(start, start + step)
            logit_cB = anchor_BD[tile] @ key_BD.mT / temperature
            # An item without the modality has no positive there and feels no force from it; its row must stay finite.
            rows_c1 = pair_KB[k, tile, None]
            p_cB = torch.where(batch.present_MB[m] & rows_c1, logit_cB, -torch.inf)
            p_cB = torch.where(rows_c1, torch.softmax(p_cB, 1), 0.0)
            if log_norm_B is not None:
                # q_ji: query j of modality m over all keys of the anchor; only pairs (j, j) have such a loss.
                p_cB += torch.where(pair_KB[k] & rows_c1, torch.exp(logit_cB - log_norm_B), 0.0)
            diagonal = p_cB.diagonal(start)
            own_KB[k, tile] = diagonal / temperature
            # Left out of the sum, not subtracted from it: at small temperatures it is nearly all of it.
            diagonal.zero_()
            push_neg_KBD[k, tile] = p_cB @ key_BD / temperature
            mass_neg_KB[k, tile] = p_cB.sum(1) / temperature
    push_KBD = push_neg_KBD + own_KB[..., None] * batch.z_MBD[others]
    return Forces(pull_KBD, push_KBD, push_neg_KBD, mass_neg_KB, pair_KB)


def _log_partitions(query_BD: Tensor, key_BD: Tensor, key_present_B: Tensor, temperature: float, step: int) -> Tensor:
    """(B,) log sum_i exp(<query_j, key_i> / tau) over present keys."""
    blank_B = torch.where(key_present_B, 0.0, -torch.inf).to(key_BD.dtype)
    return torch.cat(
        [torch.logsumexp(q_cD @ key_BD.mT / temperature + blank_B, 1) for q_cD in torch.split(query_BD, step)]
    )


def _double(z: Tensor) -> Tensor:
    if not isinstance(z, Tensor) or not z.is_floating_point():
        return z  # the border says what is wrong with it
    return (z.cpu() if z.device.type == "mps" else z).double()  # mps has no float64


def _tangent(x_BD: Tensor, z_BD: Tensor) -> Tensor:
    """T(x) = x - <x, z> z for unit z: the part of a force that moves a point on the sphere."""
    return x_BD - (x_BD * z_BD).sum(-1, keepdim=True) * z_BD


def _cosine(x_BD: Tensor, y_BD: Tensor, x_size_B: Tensor, y_size_B: Tensor) -> Tensor:
    """Cosine of each row, NaN where either has cancelled to rounding of its size."""
    x_B, y_B = torch.linalg.vector_norm(x_BD, dim=-1), torch.linalg.vector_norm(y_BD, dim=-1)
    sound_B = (x_B > _FLOOR * x_size_B) & (y_B > _FLOOR * y_size_B)
    # Dividing first: forces of far negatives can be as small as 1e-200, whose product underflows.
    x_BD = x_BD / torch.where(sound_B, x_B, torch.nan)[:, None]
    return (x_BD * y_BD / torch.where(sound_B, y_B, torch.nan)[:, None]).sum(-1).clamp(-1.0, 1.0)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.nan)
