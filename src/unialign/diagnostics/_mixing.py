"""Measure retrieval from a mixed pool of modalities, and the bias towards the modality of the query.

Shapes: `n` items, `D` dim, `R` resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._estimate import Estimate, estimate
from unialign.metrics import PoolScores, mixed_pool


@dataclass(frozen=True)
class Mixing:
    """Scores on a balanced mixed pool."""

    items: int
    modalities: int
    share: Estimate  # fraction of the query's modality among the first 10 over its fair share; 1 means no bias
    own: Estimate  # NDCG@10 of queries whose positive has the same modality as the query
    cross: Estimate  # NDCG@10 of queries whose positive has another modality than the query
    balanced: Estimate  # mean of `own` and `cross`


def measure_mixing(
    z: Mapping[str, Tensor],
    usable: Mapping[str, Tensor],
    class_n: NDArray[np.int64],
    weights_Rn: Tensor,
    *,
    seed: int,
) -> Mixing:
    scores = mixed_pool(z, present=usable, ids=class_n, seeds=(seed,)).overall
    resampled = scores.resample(weights_Rn)

    def of(name: str, value: float, maximum: float) -> Estimate:
        return estimate(value, resampled[name], minimum=0.0, maximum=maximum)

    return Mixing(
        items=_items(scores),
        modalities=len(z),
        share=of("share", scores.share, float(len(class_n))),
        own=of("own", scores.own, 1.0),
        cross=of("cross", scores.cross, 1.0),
        balanced=of("balanced", scores.balanced, 1.0),
    )


def _items(scores: PoolScores) -> int:
    return len(torch.unique(scores.items))
