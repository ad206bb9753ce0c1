"""Joint retrieval between one modality of an item and the tuple of all other modalities.

For a joint query, `cosine` and `centroid` differ by a factor that is constant for each query, so both give the same
ranking. For joint candidates, the rankings differ, since the means have different lengths.

Shapes: `N` items, `K` other modalities, `n` tuples, `t` target vectors, `q` queries of one tile, `D` dimension.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign.batch import Batch
from unialign.functional import orthonormal_rows, unit_or_zero
from unialign.metrics import RetrievalResult, retrieval_from_scores

__all__ = ["JointQuery", "JointScore", "joint_retrieval", "joint_scores", "tuple_bases"]

JointQuery = Literal["others", "target"]
JointScore = Literal["cosine", "centroid", "volume"]


def joint_retrieval(
    batch: Batch,
    target: int,
    *,
    query: JointQuery,
    score: JointScore,
    ids_N: Tensor,
    k: tuple[int, ...],
) -> tuple[Tensor, RetrievalResult] | None:
    """Compute retrieval between one modality and the tuples of all other modalities.

    Args:
        batch: validated embeddings.
        target: index of the single modality.
        query: `others`: the tuples are the queries and the target vectors are the gallery; `target`: the reverse.
        score: `cosine`, the mean cosine of the target with the other present modalities; `centroid`, the cosine of the
            target with their normalized mean; `volume`, the negative squared volume spanned by the target and these
            modalities, as in GRAM.
        ids_N: (N,) integers; same-id items are positives of each other.
        k: cut-offs of recall.

    Returns:
        The item row of each scored query, and the result; None if no query has a positive.

    Raises:
        ConfigError: an unknown `score`.
    """
    check_choice("joint score", score, get_args(JointScore))
    others = [m for m in range(len(batch.names)) if m != target]
    tuple_rows = batch.present_MB[others].any(0).nonzero().flatten()
    target_rows = batch.present_MB[target].nonzero().flatten()
    if not bool(torch.isin(ids_N[target_rows], ids_N[tuple_rows]).any()):
        return None
    z_tD = batch.z_MBD[target, target_rows].double()
    z_KnD = batch.z_MBD[others][:, tuple_rows].double()
    tuples = z_KnD, batch.present_MB[others][:, tuple_rows], z_KnD.sum(0)

    def score_others(rows_q: Tensor) -> Tensor:
        z_KqD, present_Kq, sum_nD = tuples
        return joint_scores(z_KqD[:, rows_q], present_Kq[:, rows_q], sum_nD[rows_q], z_tD, score)

    def score_target(rows_q: Tensor) -> Tensor:
        return joint_scores(*tuples, z_tD[rows_q], score).mT

    if query == "others":
        tile, queries, gallery = score_others, tuple_rows, target_rows
    else:
        tile, queries, gallery = score_target, target_rows, tuple_rows
    result = retrieval_from_scores(
        tile, queries=len(queries), gallery=len(gallery), query_ids=ids_N[queries], gallery_ids=ids_N[gallery], k=k
    )
    return queries[result.rows], result


def tuple_bases(z_KnD: Tensor, present_Kn: Tensor) -> Tensor:
    """Return the volume spanned by each tuple without the target, (n,)."""
    return orthonormal_rows(list(z_KnD), present_Kn)[0]


def joint_scores(
    z_KnD: Tensor,
    present_Kn: Tensor,
    sum_nD: Tensor,
    z_tD: Tensor,
    score: JointScore,
    *,
    largest_base: Tensor | None = None,
) -> Tensor:
    """Return scores, where larger is better. `largest_base` is the maximum of `tuple_bases` over all tuples that are
    ranked together.
    """
    if score == "cosine":
        return torch.matmul(sum_nD / present_Kn.sum(0)[:, None], z_tD.mT)
    if score == "centroid":
        return torch.matmul(unit_or_zero(sum_nD)[0], z_tD.mT)
    base_n, basis = orthonormal_rows(list(z_KnD), present_Kn)
    square_nt = torch.stack([(basis_nD @ z_tD.mT) ** 2 for basis_nD in basis]).sum(0)
    # Divide by the largest base, so that ties are detected at any scale of the volumes.
    largest = base_n.max() if largest_base is None else largest_base
    relative_n = base_n / largest.clamp(min=torch.finfo(base_n.dtype).tiny)
    return torch.neg(relative_n[:, None] ** 2 * (1 - square_nt))
