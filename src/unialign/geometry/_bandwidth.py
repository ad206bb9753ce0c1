"""How far a density sees: its bandwidth, how many rows it rests on, and the warning when they are too few.

Shapes: `N` rows of a set (each has its own N), `D` width.
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

# Rows of which the median is taken: more than in training, where it is taken at every step.
_MEDIAN_ROWS = 2048
# Below this many effective neighbours a density is little more than one row.
FEW_NEIGHBOURS = 2.0


class DivergenceWarning(UserWarning):
    """A bandwidth so small that a divergence compares paired points, not distributions."""


def number_of(bandwidth: Bandwidth, rows: Sequence[Tensor]) -> float:
    """The bandwidth as a number, `median` from all rows; ConfigError for anything else."""
    if isinstance(bandwidth, Mapping):
        raise ConfigError(
            f"bandwidth must be one number for all modalities, got {bandwidth!r}: with different ones the constants of "
            f"their kernels do not cancel, and a divergence of equal sets is not 0"
        )
    if isinstance(bandwidth, str):
        if bandwidth != "median":
            raise ConfigError(f"bandwidth must be a positive number or 'median', got {bandwidth!r}")
        return median_of(rows)
    check_temperature(bandwidth, "bandwidth")
    return float(bandwidth)


def median_of(rows: Sequence[Tensor]) -> float:
    """Median distance of two different rows, of at most 2,048 of them."""
    return median_bandwidth_of(rows, limit=_MEDIAN_ROWS)


def self_pairs_of(estimator: Estimator) -> SelfPairs:
    """Whether an estimator's densities include the row at which they are taken."""
    return "excluded" if estimator == "debiased" else "included"


def neighbours(rows: Sequence[Tensor], bandwidth: float, self_pairs: SelfPairs) -> float:
    """Mean over sets of their mean effective number of neighbours."""
    return sum(mean_neighbours(z_ND, bandwidth=bandwidth, self_pairs=self_pairs) for z_ND in rows) / len(rows)


def warn_of_few_neighbours(rows: Sequence[Tensor], bandwidth: float, self_pairs: SelfPairs) -> None:
    """`DivergenceWarning`, at the line that called the diagnostic, when densities rest on fewer than two rows."""
    found = neighbours(rows, bandwidth, self_pairs)
    if found < FEW_NEIGHBOURS:
        warnings.warn(
            f"at bandwidth {bandwidth:.3g} a density rests on {found:.2f} rows, fewer than {FEW_NEIGHBOURS:.0f}: the "
            f"number is about paired points, not distributions. Use bandwidth='median', or see divergence_profile",
            DivergenceWarning,
            stacklevel=3,
        )
