"""Scores of the queries on a mixed pool, and means of these scores on resamples.

Shapes: `N` items, `Q` queries, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PoolScores:
    """Scores of the queries on one mixed pool, or on several draws of it. Means are NaN if no query defines them.

    Attributes:
        items: (Q,) int64, row number of the item of each query.
        ndcg: (Q,) float64, NDCG of each query.
        is_own: (Q,) bool, True for queries of the own half.
        shares: (Q,) float64, fraction of the query's modality among the first k candidates, divided by the fraction of
            this modality in the gallery; NaN if the gallery has no row of this modality.
        label_precisions: (Q,) float64, fraction of the first k other items that have the label of the query; NaN
            without a label.
    """

    items: Tensor
    ndcg: Tensor
    is_own: Tensor
    shares: Tensor
    label_precisions: Tensor

    @property
    def own(self) -> float:
        """Mean NDCG of the own half, where the relevant rows have the modality of the query."""
        return self._values()["own"]

    @property
    def cross(self) -> float:
        """Mean NDCG of the cross half, where the relevant rows have another modality than the query."""
        return self._values()["cross"]

    @property
    def balanced(self) -> float:
        """Mean of `own` and `cross`."""
        return self._values()["balanced"]

    @property
    def share(self) -> float:
        """Mean of `shares`; 1 means no bias, and larger values mean a bias towards the modality of the query."""
        return self._values()["share"]

    @property
    def label_precision(self) -> float:
        """Mean of `label_precisions`."""
        return self._values()["label_precision"]

    def resample(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the means on bootstrap resamples, (R,) float64 each, by name of the property.

        Args:
            weights: (R, N) weights of the items, see `resample_weights`.
        """
        w_RN = weights.to(torch.float64)
        own, cross = (self._mean(torch.where(half, self.ndcg, torch.nan), w_RN) for half in (self.is_own, ~self.is_own))
        return {
            "own": own,
            "cross": cross,
            "balanced": (own + cross) / 2,
            "share": self._mean(self.shares, w_RN),
            "label_precision": self._mean(self.label_precisions, w_RN),
        }

    def _values(self) -> dict[str, float]:
        ones = torch.ones(1, int(self.items.max()) + 1, dtype=torch.float64)
        return {name: float(value) for name, value in self.resample(ones).items()}

    def _mean(self, values_Q: Tensor, weights_RN: Tensor) -> Tensor:
        # Sum over the queries of each item first, since one weight for each query would need much more memory.
        sums_N, counts_N = (torch.zeros(weights_RN.shape[1], dtype=torch.float64) for _ in range(2))
        defined_Q = ~torch.isnan(values_Q)
        sums_N.index_add_(0, self.items, torch.where(defined_Q, values_Q, 0.0))
        counts_N.index_add_(0, self.items, defined_Q.to(torch.float64))
        return (weights_RN @ sums_N) / (weights_RN @ counts_N)


@dataclass(frozen=True, eq=False)
class MixedPoolResult:
    """Result of `mixed_pool`.

    Attributes:
        overall: scores on pools of all modalities.
        pairs: scores on pools of two modalities, by pair name such as `image-text`. Pairs with fewer than two common
            items are missing.
    """

    overall: PoolScores
    pairs: dict[str, PoolScores]


def concatenated(parts: Sequence[PoolScores]) -> PoolScores:
    return PoolScores(*(torch.cat([getattr(part, name) for part in parts]) for name in PoolScores.__annotations__))
