"""Rank by cosine. Queries with one positive are ranked by counts in float32 tiles, other queries by a full sort.

Shapes: `S` queries to rank, `G` gallery rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unialign.metrics._rank_sums import Tables, Ties
from unialign.metrics._ranks import RankCounts, count_ranks
from unialign.metrics._relevance import Positives, Relevance
from unialign.ops import TIE_TOLERANCE, UnitRows, count_above, pair_scores


@torch.no_grad()
def count_cosine_ranks(
    queries: UnitRows,
    gallery: UnitRows,
    positives: Positives | Relevance,
    rows_S: Tensor,
    *,
    ties: Ties,
    batch_size: int,
    k: Sequence[int],
) -> RankCounts:
    """Average precision and nDCG with several positives require the full order: for such queries, a float64 copy of the
    gallery is sorted.
    """
    if isinstance(positives, Relevance):
        unit_GD = gallery.exact(slice(None))
        return count_ranks(
            lambda r: queries.exact(rows_S[r]) @ unit_GD.mT, positives, ties=ties, batch_size=batch_size, k=k
        )
    positives_S = positives.counts()
    cutoffs = (None, *k)
    several_S = (positives_S > 1).nonzero().flatten()
    single_S = (positives_S == 1).nonzero().flatten()
    above_S, tied_S = torch.zeros_like(positives_S), torch.zeros_like(positives_S)
    tied_positives_S = torch.ones_like(positives_S)
    # Average precision and nDCG of the whole gallery and of each cut-off.
    found_C2S = torch.zeros(len(cutoffs), 2, len(positives_S), dtype=torch.float64)
    if len(single_S):
        codes_G, order_G = positives.gallery_codes_G.sort()
        positive_S = order_G[torch.searchsorted(codes_G, positives.query_codes_Q[single_S])].to(gallery.device)
        query_S = rows_S[single_S].to(gallery.device)
        level_S = pair_scores(queries, gallery, query_S, positive_S)
        counts = count_above(queries, gallery, level_S, rows_Q=query_S, tolerance=TIE_TOLERANCE, most=batch_size)
        above_S[single_S] = counts.above.cpu()
        tied_S[single_S] = counts.level.cpu() - 1
        tables = Tables(len(gallery))
        found_C2S[:, :, single_S] = tables.single(above_S[single_S], tied_S[single_S], ties, cutoffs)
        found_C2S[:, 1, single_S] /= tables.discount[1]
    if len(several_S):
        unit_GD = gallery.exact(slice(None))
        ranks = count_ranks(
            lambda r: queries.exact(rows_S[several_S[r]]) @ unit_GD.mT,
            Positives(positives.query_codes_Q[several_S], positives.gallery_codes_G),
            ties=ties,
            batch_size=batch_size,
            k=k,
        )
        above_S[several_S], tied_S[several_S] = ranks.above, ranks.tied
        tied_positives_S[several_S] = ranks.tied_positives
        parts = [(ranks.average_precision, ranks.ndcg), *ranks.cut.values()]
        found_C2S[:, :, several_S] = torch.stack([torch.stack(part) for part in parts])
    (ap_S, ndcg_S), *rest = found_C2S
    cut = {at: (ap_cut_S, ndcg_cut_S) for at, (ap_cut_S, ndcg_cut_S) in zip(k, rest, strict=True)}
    return RankCounts(above_S, tied_S, tied_positives_S, positives_S, ap_S, ndcg_S, len(gallery), cut)
