"""Metrics as functions of item weights, so that all metrics, objectives and seeds share one bootstrap.

Shapes: `N` items, `K` directions or anchors, `J` clustered vectors, `D` dimension, `R` resamples.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from unialign.geometry import modality_gap_debiased
from unialign.metrics import weight_blocks, weighted_v_measure

__all__ = ["ClusterAgreement", "ConstantStatistic", "DebiasedGap", "ItemMean", "Statistic", "resample"]


class Statistic(Protocol):
    """Metric of one run as a function of item weights; unit weights give the metric itself."""

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        """Return the metric under each weighting, (R,)."""
        ...


K = TypeVar("K", bound=Hashable)


def resample(
    statistics: Mapping[K, tuple[Statistic, float]], items_or_groups: Any, *, resamples: int, seed: int = 0
) -> dict[K, Tensor]:
    """Return (R,) values of each metric under the same R resamples, shifted so that their mean is the estimate.

    Repeated items in resamples bias the V-measure and squared gaps upward. The shift removes this bias from the
    intervals. Metrics that are means over items have no such bias.

    Args:
        statistics: key -> statistic and its estimate.
        items_or_groups: N, or (N,) groups, each drawn as a whole; see `unialign.metrics.resample_weights`.
        resamples: number R of resamples.
    """
    parts: dict[K, list[Tensor]] = {key: [] for key in statistics}
    # Evaluate the weights in blocks to bound memory for any N and R.
    for weights_RN in weight_blocks(items_or_groups, resamples=resamples, seed=seed):
        for key, (statistic, _) in statistics.items():
            parts[key].append(statistic.evaluate(weights_RN))
    values = {key: torch.cat(part) for key, part in parts.items()}
    return {key: values[key] - values[key].nanmean() + estimate for key, (_, estimate) in statistics.items()}


@dataclass(frozen=True)
class ItemMean:
    """Mean over items in each of K directions, then over directions; NaN marks items without a score."""

    scores_KN: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        valid_KN = ~torch.isnan(self.scores_KN)
        sums_RK = weights_RN @ torch.where(valid_KN, self.scores_KN, 0.0).T
        totals_RK = weights_RN @ valid_KN.to(weights_RN.dtype).T
        # Exclude a rare direction from the mean if the resample contains none of its valid items.
        return torch.where(totals_RK > 0, sums_RK / totals_RK.clamp(min=1e-12), torch.nan).nanmean(1)


@dataclass(frozen=True)
class DebiasedGap:
    pairs: Sequence[tuple[Tensor, Tensor, Tensor]]  # for each pair of modalities: item rows (n,), x (n, D), y (n, D)

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        gaps = [modality_gap_debiased(x_nD, y_nD, weights=weights_RN[:, rows_n]) for rows_n, x_nD, y_nD in self.pairs]
        return torch.stack(gaps).nanmean(0)


@dataclass(frozen=True)
class ClusterAgreement:
    """V-measure or NMI of fixed clusters, which are not recomputed in resamples."""

    labels_J: Tensor
    clusters_J: Tensor
    rows_J: Tensor  # item row of each clustered vector

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        return weighted_v_measure(self.labels_J, self.clusters_J, weights_RN[:, self.rows_J])


@dataclass(frozen=True)
class ConstantStatistic:
    """Metric that ignores item weights, such as the median rank; its interval reflects only seed variation."""

    value: float

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        return torch.full((len(weights_RN),), self.value, dtype=torch.float64)
