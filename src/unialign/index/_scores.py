"""Scores of the items of a part.

The score of a row g of modality m for a query q is s = c(q) c(g), where c corrects and normalizes, or with CSLS 2 s -
r_m(q) - r_q(g) (see `correction/_csls.py`), where r_q is the mean of r over the modalities of the query. The score of an
item is the sum of its row scores over the target modalities it has, divided by the norm of the sum of its corrected
rows: for cosines, this is the cosine with their normalized mean, so absent modalities are not penalized.

Shapes: `Q` queries, `n` items, `m` rows of a modality, `D` dimension, `M` modalities.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from unialign.index._calibration import Calibration
from unialign.index._derived import row_places
from unialign.index._query_vectors import Vectors
from unialign.index._snapshot import Derived, Part

# Items whose corrected rows have a sum with a smaller norm have no direction.
SMALLEST_SUM = 1e-3


def row_scores(
    part: Part, derived: Derived, calibration: Calibration, vectors: Vectors, targets: Sequence[str]
) -> dict[str, Tensor]:
    """Modality -> (Q, m) scores of the rows of each target modality, float64."""
    found: dict[str, Tensor] = {}
    for name in targets:
        if name not in part.rows:
            continue
        q_QD, offset_Q1 = vectors.q_QD, torch.zeros(len(vectors.q_QD), 1, dtype=torch.float64)
        if name in calibration.bias:
            offset_Q1 = (q_QD @ calibration.bias[name])[:, None]
        if name in calibration.weight:
            q_QD = q_QD @ calibration.weight[name].mT
        z_mD = torch.from_numpy(part.rows[name]).double()
        inverse_m = torch.from_numpy(derived.inverse_norm[name]).double()
        s_Qm = (q_QD @ z_mD.mT + offset_Q1) * inverse_m
        if calibration.reference:
            local_Q = torch.stack(
                [share_M @ _query_local(calibration, q_D, name) for q_D, share_M in zip(*_pairs(vectors), strict=True)]
            )
            local_mM = torch.from_numpy(derived.local[name]).double()
            s_Qm = 2 * s_Qm - local_Q[:, None] - vectors.share_QM @ local_mM.mT
        found[name] = s_Qm
    return found


def item_scores(
    part: Part, derived: Derived, rows: Mapping[str, Tensor], targets: Sequence[str], modalities: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """(Q, n) scores, -inf for items without a target, and the (n,) mask of items whose rows cancel."""
    queries = len(next(iter(rows.values()))) if rows else 0
    sum_Qn = torch.zeros(queries, part.items, dtype=torch.float64)
    square_n = torch.zeros(part.items, dtype=torch.float64)
    for name, s_Qm in rows.items():
        places_m = torch.from_numpy(row_places(part, name).astype("int64"))
        sum_Qn[:, places_m] += s_Qm
        square_n[places_m] += 1
    has_n = square_n > 0
    for column, (a, b) in enumerate(combinations(modalities, 2)):
        if a in rows and b in rows:
            square_n += 2 * torch.from_numpy(derived.inner[:, column]).double()
    norm_n = square_n.clamp(min=0).sqrt()
    cancelled_n = has_n & (norm_n < SMALLEST_SUM)
    scores_Qn = (sum_Qn / norm_n).masked_fill(~has_n | cancelled_n, -torch.inf)
    return scores_Qn, cancelled_n


def best_scores(part: Part, rows: Mapping[str, Tensor]) -> Tensor:
    """(Q, n) largest row score of each item, -inf for items without a target."""
    queries = len(next(iter(rows.values()))) if rows else 0
    best_Qn = torch.full((queries, part.items), -torch.inf, dtype=torch.float64)
    for name, s_Qm in rows.items():
        places_m = torch.from_numpy(row_places(part, name).astype("int64"))
        best_Qn[:, places_m] = torch.maximum(best_Qn[:, places_m], s_Qm)
    return best_Qn


def _query_local(calibration: Calibration, q_D: Tensor, target: str) -> Tensor:
    """(M,) mean cosine of the query with reference rows of the target; rows of the query's own modality may be in it."""
    return torch.stack([calibration.local(name, q_D[None], target)[0] for name in calibration.modalities])


def _pairs(vectors: Vectors) -> tuple[Tensor, Tensor]:
    return vectors.q_QD, vectors.share_QM
