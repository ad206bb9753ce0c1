"""Joint retrieval between one modality of an item and all its other modalities together, in both directions.

Scores: `cosine`, the mean cosine of the target with the other present modalities; `centroid`, its cosine with their
normalized mean; `volume`, minus the squared volume that the target spans with them (GRAM's score). For a fixed joint
*query*, cosine and centroid differ by a constant factor and rank a gallery alike; for joint *candidates* they differ,
since the lengths of the centroids do.

Shapes: `N` items, `K` other modalities, `Q`, `G` rows of queries and gallery, `q` queries of one tile, `D` dimension.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import determinant_and_adjugate, masked_gram, unit_or_zero
from unialign.metrics import RetrievalResult, retrieval_from_scores

__all__ = ["JOINT_SCORES", "JointScore", "joint_retrieval"]

JointScore = Literal["cosine", "centroid", "volume"]
JOINT_SCORES: tuple[JointScore, ...] = ("cosine", "centroid", "volume")


@dataclass(frozen=True)
class _Tuples:
    """Joint representations of the items that have at least one of the other modalities."""

    rows_n: Tensor
    z_KnD: Tensor
    present_Kn: Tensor
    sum_nD: Tensor

    def score(self, target_tD: Tensor, kind: JointScore) -> Tensor:
        """Score each tuple with each target vector, (n, t); larger is better."""
        if kind == "cosine":
            return torch.matmul(self.sum_nD / self.present_Kn.sum(0)[:, None], target_tD.mT)
        if kind == "centroid":
            return torch.matmul(unit_or_zero(self.sum_nD)[0], target_tD.mT)
        if kind != "volume":
            raise ConfigError(f"unknown joint score {kind!r}; expected one of {', '.join(JOINT_SCORES)}")
        det_n, adj_nKK = determinant_and_adjugate(masked_gram(self.z_KnD, self.present_Kn))
        cosine_Knt = self.z_KnD @ target_tD.mT
        square_nt = det_n[:, None] - torch.einsum("knt,nkl,lnt->nt", cosine_Knt, adj_nKK, cosine_Knt)
        return torch.neg(square_nt)

    def at(self, index: Tensor) -> "_Tuples":
        return _Tuples(self.rows_n[index], self.z_KnD[:, index], self.present_Kn[:, index], self.sum_nD[index])


def joint_retrieval(
    batch: Batch,
    target: int,
    *,
    query: Literal["others", "target"],
    score: JointScore,
    ids_N: Tensor,
    k: tuple[int, ...],
) -> tuple[Tensor, RetrievalResult] | None:
    """Compute retrieval between one modality and the tuples of all the others.

    Args:
        batch: validated embeddings.
        target: index of the single modality.
        query: `others`: tuples are the queries and target vectors the gallery; `target`: the reverse.
        score: see the module docstring.
        ids_N: same-id items are positives of each other.
        k: cut-offs of recall.

    Returns:
        The item row of each scored query, and the result; None if no query has a positive.
    """
    tuples = _tuples(batch, target)
    single_t = batch.present_MB[target].nonzero().flatten()
    if len(tuples.rows_n) == 0 or not bool(torch.isin(ids_N[single_t], ids_N[tuples.rows_n]).any()):
        return None
    z_tD = batch.z_MBD[target, single_t].double()
    if query == "others":
        queries, gallery = tuples.rows_n, single_t

        def tile(rows_q: Tensor) -> Tensor:
            return tuples.at(rows_q).score(z_tD, score)
    else:
        queries, gallery = single_t, tuples.rows_n

        def tile(rows_q: Tensor) -> Tensor:
            return tuples.score(z_tD[rows_q], score).mT

    result = retrieval_from_scores(
        tile, queries=len(queries), gallery=len(gallery), query_ids=ids_N[queries], gallery_ids=ids_N[gallery], k=k
    )
    return queries[result.rows], result


def _tuples(batch: Batch, target: int) -> _Tuples:
    others = [m for m in range(len(batch.names)) if m != target]
    present_KN = batch.present_MB[others]
    rows_n = present_KN.any(0).nonzero().flatten()
    z_KnD = batch.z_MBD[others][:, rows_n].double()
    return _Tuples(rows_n, z_KnD, present_KN[:, rows_n], z_KnD.sum(0))
