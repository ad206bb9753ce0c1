"""Evaluate all divergence estimators on a grid of bandwidths, with a verdict on each bandwidth.

Shapes: `M` modalities, `B` items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from unialign._checks import check_integer
from unialign.errors import ConfigError
from unialign.functional import Estimator, holder_of_rows
from unialign.geometry._bandwidth import FEW_NEIGHBORS, Bandwidth, neighbors, number_of
from unialign.geometry._divergence import bytes_needed
from unialign.geometry._validation import double_batch, present_rows

BandwidthVerdict = Literal["distributions", "debiased only", "points"]


@dataclass(frozen=True, repr=False)
class DivergenceRow:
    """Values at one bandwidth of a profile.

    Attributes:
        label: the requested bandwidth, a number or `median`.
        bandwidth: the bandwidth as a number.
        values: estimator -> D_H; None for `debiased` if a modality has only one row, and for `exact` if it needs more
            than `max_bytes` of memory.
        neighbors: effective number of rows of a density, including the row itself.
        neighbors_debiased: effective number of rows without the row itself, as in `debiased`; 0 if a modality has only
            one row.
        verdict: `distributions` if both numbers of neighbors are at least 2; `debiased only` if only
            `neighbors_debiased` is at least 2, since the row itself then dominates the densities of the other
            estimators; `points` in all other cases, since the values then compare paired points.
    """

    label: str
    bandwidth: float
    values: dict[str, float | None]
    neighbors: float
    neighbors_debiased: float
    verdict: BandwidthVerdict

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.3g}" for name, value in self.values.items() if value is not None)
        named = self.label if self.label != "median" else f"median = {self.bandwidth:.3g}"
        return f"DivergenceRow(bandwidth {named}: {values}; {self.neighbors:.3g} neighbors, verdict {self.verdict!r})"


@dataclass(frozen=True, repr=False)
class DivergenceProfile:
    """Result of `divergence_profile`: one row per bandwidth, in the given order."""

    rows: tuple[DivergenceRow, ...]

    def __repr__(self) -> str:
        return "\n  ".join(["DivergenceProfile(", *map(repr, self.rows)]) + "\n)"

    def row(self, label: str | float) -> DivergenceRow:
        """Return the row of a bandwidth; if there is no such row, raise ConfigError with all bandwidths."""
        found = [row for row in self.rows if row.label == _label(label)]
        if not found:
            raise ConfigError(f"the profile has no bandwidth {label!r}; expected one of {[r.label for r in self.rows]}")
        return found[0]


@torch.no_grad()
def divergence_profile(
    embeddings: Mapping[str, Any],
    *,
    bandwidths: Sequence[Bandwidth] = (0.2, 0.5, 1.0, "median"),
    present: Mapping[str, Any] | None = None,
    max_bytes: int = 2**30,
) -> DivergenceProfile:
    """Compute the Hölder divergence by every estimator at every bandwidth, with the effective number of neighbors.

    A divergence estimated from densities depends on the bandwidth, and the estimators disagree if the bandwidth is too
    small for the number of rows. A single value shows neither effect. Bandwidths far above the distances between rows
    make every value small, so compare only values at the same bandwidth.

    Args:
        embeddings, present: as in `holder_divergence`.
        bandwidths: positive numbers, or `median`.
        max_bytes: memory limit of `exact`; above this limit, the values of `exact` are None.

    Raises:
        As in `holder_divergence`, except in the cases where `DivergenceRow.values` contains None.
    """
    check_integer("max_bytes", max_bytes, low=1)
    if isinstance(bandwidths, str) or not isinstance(bandwidths, Sequence) or not bandwidths:
        raise ConfigError(f"bandwidths must be a sequence such as (0.2, 0.5, 'median'), got {bandwidths!r}")
    rows, items = present_rows(double_batch(embeddings, present), "divergence_profile")
    known: list[Estimator] = list(get_args(Estimator))
    if min(map(len, rows)) < 2:
        known.remove("debiased")
    if bytes_needed(rows, "exact") > max_bytes:
        known.remove("exact")
    found = []
    for bandwidth in bandwidths:
        tau = number_of(bandwidth, rows)
        values: dict[str, float | None] = dict.fromkeys(get_args(Estimator))
        values |= {name: float(holder_of_rows(rows, items, bandwidth=tau, estimator=name)) for name in known}
        own, others = neighbors(rows, tau, "included"), neighbors(rows, tau, "excluded")
        found.append(DivergenceRow(_label(bandwidth), tau, values, own, others, _verdict(own, others)))
    return DivergenceProfile(tuple(found))


def _label(bandwidth: str | float) -> str:
    return bandwidth if isinstance(bandwidth, str) else f"{bandwidth:g}"


def _verdict(own: float, others: float) -> BandwidthVerdict:
    if own >= FEW_NEIGHBORS and others >= FEW_NEIGHBORS:
        return "distributions"
    return "debiased only" if others >= FEW_NEIGHBORS else "points"
