"""Ranks by cosine: from counts in float32 tiles for queries with one positive, from a full sort for those with several.

Shapes: `S` queries to rank, `G` gallery.
"""

import torch
from torch import Tensor

from unialign.metrics._ranks import Positives, RankCounts, Tables, Ties, count_ranks
from unialign.ops import TIE_TOLERANCE, UnitRows, count_above, pair_scores


@torch.no_grad()
def count_cosine_ranks(
    queries: UnitRows, gallery: UnitRows, positives: Positives, rows_S: Tensor, *, ties: Ties, batch_size: int
) -> RankCounts:
    """Compute `count_ranks` for the cosines of queries[rows_S] and the gallery.

    A query with one positive costs a float32 product and O(1) memory. Average precision and nDCG with several positives
    require the full order: for such queries, a float64 copy of the gallery is sorted.
    """
    positives_S = positives.counts()
    several_S = (positives_S > 1).nonzero().flatten()
    single_S = (positives_S == 1).nonzero().flatten()
    above_S, tied_S = torch.zeros_like(positives_S), torch.zeros_like(positives_S)
    tied_positives_S = torch.ones_like(positives_S)
    ap_S, ndcg_S = (torch.zeros(len(positives_S), dtype=torch.float64) for _ in range(2))
    if len(single_S):
        codes_G, order_G = positives.gallery_codes_G.sort()
        positive_S = order_G[torch.searchsorted(codes_G, positives.query_codes_Q[single_S])].to(gallery.device)
        query_S = rows_S[single_S].to(gallery.device)
        level_S = pair_scores(queries, gallery, query_S, positive_S)
        counts = count_above(queries, gallery, level_S, rows_Q=query_S, tolerance=TIE_TOLERANCE, most=batch_size)
        above_S[single_S] = counts.above.cpu()
        tied_S[single_S] = counts.level.cpu() - 1
        tables = Tables(len(gallery))
        ap_S[single_S], gain_S = tables.single(above_S[single_S], tied_S[single_S], ties)
        ndcg_S[single_S] = gain_S / tables.discount[1]
    if len(several_S):
        unit_GD = gallery.exact(slice(None))
        ranks = count_ranks(
            lambda r: queries.exact(rows_S[several_S[r]]) @ unit_GD.mT,
            Positives(positives.query_codes_Q[several_S], positives.gallery_codes_G),
            ties=ties,
            batch_size=batch_size,
        )
        above_S[several_S], tied_S[several_S] = ranks.above, ranks.tied
        tied_positives_S[several_S] = ranks.tied_positives
        ap_S[several_S], ndcg_S[several_S] = ranks.average_precision, ranks.ndcg
    return RankCounts(above_S, tied_S, tied_positives_S, positives_S, ap_S, ndcg_S, len(gallery))
