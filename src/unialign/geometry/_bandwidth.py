"""Resolve the bandwidth of densities, and warn if the effective number of neighbors is too small.

Shapes: `N` rows of a set (N may differ between sets), `D` dimension.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from unialign._checks import check_temperature
from unialign.errors import ConfigError
from unialign.functional import Estimator, mean_neighbors, median_bandwidth_of
from unialign.ops import SelfPairs

Bandwidth = float | Literal["median"]

# Maximum number of rows for the median; larger than in training, where the median is computed at every step.
_MEDIAN_ROWS = 2048
# With fewer effective neighbors, one row dominates the density.
FEW_NEIGHBORS = 2.0


class DivergenceWarning(UserWarning):
    """Warning that the bandwidth is too small: the divergence compares paired points rather than distributions."""


def number_of(bandwidth: Bandwidth, rows: Sequence[Tensor]) -> float:
    if isinstance(bandwidth, Mapping):
        raise ConfigError(
            f"bandwidth must be one number for all modalities, got {bandwidth!r}; kernels with different "
            f"bandwidths have constants that do not cancel, so equal sets would have a nonzero divergence"
        )
    if isinstance(bandwidth, str):
        if bandwidth != "median":
            raise ConfigError(f"bandwidth must be a positive number or 'median', got {bandwidth!r}")
        return median_of(rows)
    check_temperature(bandwidth, "bandwidth")
    return float(bandwidth)


def median_of(rows: Sequence[Tensor]) -> float:
    """Return the median bandwidth of at most 2,048 rows."""
    return median_bandwidth_of(rows, limit=_MEDIAN_ROWS)


def self_pairs_of(estimator: Estimator) -> SelfPairs:
    return "excluded" if estimator == "debiased" else "included"


def neighbors(rows: Sequence[Tensor], bandwidth: float, self_pairs: SelfPairs) -> float:
    """Return the effective number of neighbors, averaged over the rows of each set and then over sets."""
    return sum(mean_neighbors(z_ND, bandwidth=bandwidth, self_pairs=self_pairs) for z_ND in rows) / len(rows)


def warn_of_few_neighbors(rows: Sequence[Tensor], bandwidth: float, self_pairs: SelfPairs) -> None:
    found = neighbors(rows, bandwidth, self_pairs)
    if found < FEW_NEIGHBORS:
        warnings.warn(
            f"at bandwidth {bandwidth:.3g} a density has {found:.2f} effective neighbors, fewer than "
            f"{FEW_NEIGHBORS:.0f}, so the divergence compares paired points, not distributions. "
            f"Use bandwidth='median', or see divergence_profile",
            DivergenceWarning,
            stacklevel=3,
        )
