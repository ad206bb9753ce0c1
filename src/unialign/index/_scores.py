"""Scores of items in float32 with error bounds, and in float64.

The score of a row g of modality m for a query q is s = c(q) c(g), where c corrects and normalizes, or with CSLS 2 s -
r_m(q) - r_q(g) (see `correction/_csls.py`), where r_q(g) is the mean of r_a(g) over the modalities a of the query, by
their absolute weights. The score of an item is the cosine with the normalized mean of its corrected rows in the target
modalities, so absent modalities are not penalized; with CSLS, twice this cosine minus the means of r_m(q) and r_q(g)
over these rows. (Row scores divided by the norm would prefer items with few modalities, since they can be negative.)
For the target `best`, it is the largest cosine of a row, without the terms of CSLS.

The affine map of a correction is applied to the query instead of the rows:
c(q) c(g) = (g (W c(q)) + b c(q)) / |g W + b|.

Shapes: `Q` vectors of queries, `C` pairs of a vector and an item, `c` items of a tile, `r` rows of a tile, `n` items,
`D` dimension, `M` modalities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.index._calibration import Calibration
from unialign.index._prepared import PreparedPart, TargetRows, weight_norm
from unialign.index._query_vectors import Vectors
from unialign.ops import rounded_queries, row_products

_BLOCK = 1024


@dataclass(frozen=True)
class QueryTerms:
    """Numbers of the queries for one target modality.

    Attributes:
        mapped_QD: W c(q), twice that with CSLS; float64.
        rounded_QD: the same for products.
        offset_Q: b c(q), twice that with CSLS.
        local_Q: r_m(q), 0 without CSLS.
        uses_local: whether scores have the terms of CSLS.
    """

    mapped_QD: Tensor
    rounded_QD: Tensor
    offset_Q: Tensor
    local_Q: Tensor
    has_offset: bool
    uses_local: bool


def query_terms(calibration: Calibration, vectors: Vectors, targets: Sequence[str]) -> dict[str, QueryTerms]:
    """Return target modality -> numbers of the queries."""
    factor = 2.0 if calibration.reference else 1.0
    found: dict[str, QueryTerms] = {}
    for name in targets:
        mapped_QD = factor * vectors.q_QD
        offset_Q = (
            mapped_QD @ calibration.bias[name] if name in calibration.bias else torch.zeros(len(mapped_QD)).double()
        )
        if name in calibration.weight:
            mapped_QD = mapped_QD @ calibration.weight[name].mT
        local_Q = _query_local(calibration, vectors, name)
        rounded_QD, has_offset = rounded_queries(mapped_QD), name in calibration.bias
        found[name] = QueryTerms(mapped_QD, rounded_QD, offset_Q, local_Q, has_offset, bool(calibration.reference))
    return found


def error_factor(calibration: Calibration, terms: dict[str, QueryTerms]) -> float:
    """Return the factor, at least 1, of the error bounds of prepared parts."""
    factor = 2.0 if calibration.reference else 1.0
    longest = {name: float(torch.linalg.vector_norm(term.mapped_QD, dim=1).max()) for name, term in terms.items()}
    return max([1.0, *(length / factor / weight_norm(calibration, name) for name, length in longest.items())])


def tile_scores(
    prepared: PreparedPart, at: slice | NDArray[np.int64], terms: dict[str, QueryTerms], vectors: Vectors, *, best: bool
) -> Tensor:
    """Return (Q, c) float32 scores of the items in a range, or at ascending places."""
    single: Tensor | None = None
    size = at.stop - at.start if isinstance(at, slice) else len(at)
    for target in prepared.targets:
        rows, positions = target.at(at)
        s_Qr = _row_scores(target, rows, terms[target.name], vectors, blank=-torch.inf if best else 0.0)
        if positions is None and single is None:
            single = s_Qr
            continue
        if single is None:
            single = s_Qr.new_full((len(s_Qr), size), -torch.inf if best else 0.0)
        if positions is None:
            single = torch.maximum(single, s_Qr) if best else single.add_(s_Qr)
        elif best:
            single.scatter_reduce_(1, positions.expand(len(s_Qr), -1), s_Qr, "amax")
        else:
            single.index_add_(1, positions, s_Qr)
    if single is None:
        return torch.full((len(vectors.q_QD), size), -torch.inf)
    if prepared.scale_n is not None:
        single.mul_(prepared.scale_n[at] if isinstance(at, slice) else prepared.scale_n[torch.from_numpy(at)])
    return single


def _row_scores(
    target: TargetRows, rows: slice | Tensor, terms: QueryTerms, vectors: Vectors, *, blank: float
) -> Tensor:
    s_Qr = row_products(terms.rounded_QD, target.rows_mD[rows])
    if terms.has_offset:
        s_Qr.add_(terms.offset_Q.to(s_Qr)[:, None])
    if target.inverse_m is not None:
        s_Qr.mul_(target.inverse_m[rows])
    if terms.uses_local and target.local_mM is not None:
        if target.ratio_m is None:
            torch.addmm(s_Qr, vectors.share_QM.to(s_Qr), target.local_mM[rows].to(s_Qr).mT, alpha=-1, out=s_Qr)
            s_Qr.sub_(terms.local_Q.to(s_Qr)[:, None])
        else:
            local_Qr = vectors.share_QM.to(s_Qr) @ target.local_mM[rows].to(s_Qr).mT
            s_Qr.sub_(local_Qr.add_(terms.local_Q.to(s_Qr)[:, None]).mul_(target.ratio_m[rows]))
    if target.blank_m is not None:
        s_Qr.masked_fill_(target.blank_m[rows], blank)
    return s_Qr


@dataclass(frozen=True)
class ExactItems:
    """Corrected rows of few items, in float64.

    Attributes:
        unit: modality -> (n, D) corrected unit rows, 0 where absent or without direction.
        has: modality -> (n,) bool.
        local: modality -> (n, M) mean cosines with reference rows; empty without CSLS.
    """

    unit: dict[str, Tensor]
    has: dict[str, Tensor]
    local: dict[str, Tensor]


def exact_items(prepared: PreparedPart, calibration: Calibration, places: NDArray[np.int64]) -> ExactItems:
    """Read and correct the rows of items at given places."""
    unit: dict[str, Tensor] = {}
    has: dict[str, Tensor] = {}
    local: dict[str, Tensor] = {}
    for target in prepared.targets:
        rows, positions = target.at(places)
        at = slice(None) if positions is None else positions
        dim = target.rows_mD.shape[1]
        unit_nD, has_n = torch.zeros(len(places), dim, dtype=torch.float64), torch.zeros(len(places), dtype=torch.bool)
        unit_nD[at] = calibration.correct(target.name, target.rows_mD[rows]).nan_to_num(nan=0.0)
        has_n[at] = True if target.blank_m is None else ~target.blank_m[rows]
        unit[target.name], has[target.name] = unit_nD * has_n[:, None], has_n
        if target.local_mM is not None:
            local_nM = torch.zeros(len(places), target.local_mM.shape[1], dtype=torch.float64)
            local_nM[at] = target.local_mM[rows].double()
            local[target.name] = local_nM
    return ExactItems(unit, has, local)


def exact_row_scores(
    items: ExactItems, terms: dict[str, QueryTerms], vectors: Vectors, q_C: Tensor, n_C: Tensor
) -> dict[str, Tensor]:
    """Return modality -> (C,) row scores, NaN for absent rows."""
    found = _exact_cosines(items, vectors, q_C, n_C)
    for name, local_C in _exact_local(items, terms, vectors, q_C, n_C).items():
        found[name] = 2 * found[name] - local_C
    return found


def exact_scores(
    items: ExactItems, terms: dict[str, QueryTerms], vectors: Vectors, q_C: Tensor, n_C: Tensor, *, best: bool
) -> Tensor:
    """Return (C,) scores of items."""
    if best or len(items.unit) == 1:
        scores_MC = torch.stack(list(exact_row_scores(items, terms, vectors, q_C, n_C).values()))
        return scores_MC.nan_to_num(nan=-torch.inf).amax(0) if best else scores_MC[0]
    cosines_MC = torch.stack(list(_exact_cosines(items, vectors, q_C, n_C).values()))
    norm_n = torch.linalg.vector_norm(torch.stack(list(items.unit.values())).sum(0), dim=1)
    cosine_C: Tensor = cosines_MC.nansum(0) / norm_n[n_C]
    local = _exact_local(items, terms, vectors, q_C, n_C)
    return 2 * cosine_C - torch.stack(list(local.values())).nanmean(0) if local else cosine_C


def _exact_cosines(items: ExactItems, vectors: Vectors, q_C: Tensor, n_C: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, unit_nD in items.unit.items():
        s_C = torch.empty(len(q_C), dtype=torch.float64)
        for start in range(0, len(q_C), _BLOCK):
            few = slice(start, start + _BLOCK)
            s_C[few] = (vectors.q_QD[q_C[few]] * unit_nD[n_C[few]]).sum(1)
        found[name] = s_C.masked_fill(~items.has[name][n_C], torch.nan)
    return found


def _exact_local(
    items: ExactItems, terms: dict[str, QueryTerms], vectors: Vectors, q_C: Tensor, n_C: Tensor
) -> dict[str, Tensor]:
    """Return modality -> (C,) terms of CSLS, NaN for absent rows; empty without CSLS."""
    found: dict[str, Tensor] = {}
    for name, local_nM in items.local.items():
        if terms[name].uses_local:
            local_C = terms[name].local_Q[q_C] + (vectors.share_QM[q_C] * local_nM[n_C]).sum(1)
            found[name] = local_C.masked_fill(~items.has[name][n_C], torch.nan)
    return found


def _query_local(calibration: Calibration, vectors: Vectors, target: str) -> Tensor:
    """Return the (Q,) mean cosines of the queries with their nearest reference rows of the target.

    A query of the target modality may be a reference row itself, which is left out.
    """
    local_Q = torch.zeros(len(vectors.q_QD), dtype=torch.float64)
    if target not in calibration.reference:
        return local_Q
    own_Q = vectors.share_QM[:, calibration.modalities.index(target)] > 0
    other = next((name for name in calibration.modalities if name != target), target)
    for mask_Q, name in ((own_Q, target), (~own_Q, other)):
        if bool(mask_Q.any()):
            local_Q[mask_Q] = calibration.local(name, vectors.q_QD[mask_Q], target)
    return local_Q
