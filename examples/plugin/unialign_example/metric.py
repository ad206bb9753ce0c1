"""Measure the cosine margin between the positive and the hardest negative."""

from itertools import permutations

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.evaluation import ItemMean, Metric

__all__ = ["COSINE_MARGIN"]


def cosine_margin(batch: Batch, labels_N: Tensor | None) -> ItemMean | None:
    """Compute cos(positive) - max cos(negative) of each item, in every ordered pair of modalities."""
    rows_KN = []
    for m, n in permutations(range(len(batch.names)), 2):
        both = (batch.present_MB[m] & batch.present_MB[n]).nonzero().flatten()
        if len(both) < 2:
            continue
        cosine_nn = (batch.z_MBD[m, both] @ batch.z_MBD[n, both].mT).double()
        true_n = cosine_nn.diagonal().clone()
        scores_N = torch.full((batch.present_MB.shape[1],), torch.nan, dtype=torch.float64)
        scores_N[both] = true_n - cosine_nn.fill_diagonal_(-1.0).amax(1)
        rows_KN.append(scores_N)
    return ItemMean(torch.stack(rows_KN)) if rows_KN else None


COSINE_MARGIN = Metric(
    label="cosine margin",
    description="cosine of the positive minus that of the hardest negative, mean over ordered pairs",
    unit="number",
    range=(-2.0, 2.0),
    measure=cosine_margin,
)
