"""The bandwidth of a density, its effective number of neighbours, and the warning when they are too few.

Shapes: `N` rows of a set (N differs between sets), `D` dim.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from unialign._checks import check_temperature
from unialign.errors import ConfigError
from unialign.functional import Estimator, mean_neighbours, median_bandwidth_of
from unialign.ops import SelfPairs

__all__ = [
    "FEW_NEIGHBOURS",
    "Bandwidth",
    "DivergenceWarning",
    "median_of",
    "neighbours",
    "number_of",
    "self_pairs_of",
    "warn_of_few_neighbours",
]

Bandwidth = float | Literal["median"]

# Number of rows for the median: more than in training, which computes it at every step.
_MEDIAN_ROWS = 2048
# With fewer effective neighbours a density is dominated by one row.
FEW_NEIGHBOURS = 2.0


class DivergenceWarning(UserWarning):
    """A bandwidth so small that a divergence compares paired points, not distributions."""


def number_of(bandwidth: Bandwidth, rows: Sequence[Tensor]) -> float:
    """Return the bandwidth as a number, `median` from all rows; ConfigError for anything else."""
    if isinstance(bandwidth, Mapping):
        raise ConfigError(
            f"bandwidth must be one number for all modalities, got {bandwidth!r}: kernels with different "
            f"bandwidths have constants that do not cancel, so that equal sets would differ"
        )
    if isinstance(bandwidth, str):
        if bandwidth != "median":
            raise ConfigError(f"bandwidth must be a positive number or 'median', got {bandwidth!r}")
        return median_of(rows)
    check_temperature(bandwidth, "bandwidth")
    return float(bandwidth)


def median_of(rows: Sequence[Tensor]) -> float:
    """Return the median distance of two different rows, of at most 2,048 rows."""
    return median_bandwidth_of(rows, limit=_MEDIAN_ROWS)


def self_pairs_of(estimator: Estimator) -> SelfPairs:
    """Return whether the densities of an estimator include the row at which they are evaluated."""
    return "excluded" if estimator == "debiased" else "included"


def neighbours(rows: Sequence[Tensor], bandwidth: float, self_pairs: SelfPairs) -> float:
    """Return the mean over sets of their mean effective number of neighbours."""
    return sum(mean_neighbours(z_ND, bandwidth=bandwidth, self_pairs=self_pairs) for z_ND in rows) / len(rows)


def warn_of_few_neighbours(rows: Sequence[Tensor], bandwidth: float, self_pairs: SelfPairs) -> None:
    """Issue a `DivergenceWarning` at the caller's line when densities have fewer than two effective neighbours."""
    found = neighbours(rows, bandwidth, self_pairs)
    if found < FEW_NEIGHBOURS:
        warnings.warn(
            f"at bandwidth {bandwidth:.3g} a density has {found:.2f} effective neighbours, fewer than "
            f"{FEW_NEIGHBOURS:.0f}: the divergence compares paired points, not distributions. "
            f"Use bandwidth='median', or see divergence_profile",
            DivergenceWarning,
            stacklevel=3,
        )
