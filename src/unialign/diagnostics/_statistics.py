"""The sampled rows, and numbers with intervals: one set of bootstrap weights serves all, so that they are paired.

Shapes: `n` sampled items, `k` rows kept, `W` windows, `L` rows of one, `D` width, `R` resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._row_alignment import Windows
from unialign.diagnostics._scan import Scan
from unialign.diagnostics._sources import Material
from unialign.metrics import percentile_interval, resample_weights, weighted_mean

__all__ = ["LEVEL", "Sample", "Value", "estimate", "joined", "mean_value", "plain", "sampled", "windowed"]

LEVEL = 0.95


@dataclass(frozen=True)
class Value:
    """An estimate, its 95 % interval, and the resamples it came from."""

    mean: float
    low: float
    high: float
    values_R: Tensor

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Sample:
    """The items looked at closely.

    Attributes:
        rows_n: their row numbers.
        z: modality -> (n, D) float64 unit rows; 0 where not usable.
        usable: modality -> (n,) bool.
        hashes: modality -> (n,) checksums of the rows.
        ids_n: equal ids answer each other.
        labels_n: -1 for none; None where there are no labels.
        weights_Rn: how often each item counts in each resample; items of one id are drawn together.
    """

    rows_n: NDArray[np.int64]
    z: dict[str, Tensor]
    usable: dict[str, Tensor]
    hashes: dict[str, NDArray[np.uint64]]
    ids_n: NDArray[np.int64]
    labels_n: NDArray[np.int64] | None
    weights_Rn: Tensor

    def both(self, a: str, b: str) -> Tensor:
        """Positions of the items that both modalities have."""
        return (self.usable[a] & self.usable[b]).nonzero().flatten()


def sampled(
    material: Material,
    scans: Mapping[str, Scan],
    kept_k: NDArray[np.int64],
    rows_n: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> Sample:
    """The sample among the rows `kept_k` that the scans kept."""
    unit = {name: _unit_rows(scan, kept_k, rows_n) for name, scan in scans.items()}
    ids_n = rows_n if material.ids_N is None else material.ids_N[rows_n]
    return Sample(
        rows_n=rows_n,
        z={name: z_nD for name, (z_nD, _) in unit.items()},
        usable={name: usable_n for name, (_, usable_n) in unit.items()},
        hashes={name: scan.hashes_N[rows_n] for name, scan in scans.items()},
        ids_n=ids_n,
        labels_n=None if material.labels_N is None else material.labels_N[rows_n],
        weights_Rn=resample_weights(ids_n, resamples=resamples, seed=seed),
    )


def windowed(scans: Mapping[str, Scan], kept_k: NDArray[np.int64], rows_WL: NDArray[np.int64]) -> Windows:
    """Stretches of neighbouring rows among the rows that the scans kept."""
    unit = {name: _unit_rows(scan, kept_k, rows_WL.reshape(-1)) for name, scan in scans.items()}
    return Windows(
        rows_WL=rows_WL,
        z={name: z_nD.reshape(*rows_WL.shape, -1) for name, (z_nD, _) in unit.items()},
        usable={name: usable_n.reshape(rows_WL.shape) for name, (_, usable_n) in unit.items()},
    )


def _unit_rows(scan: Scan, kept_k: NDArray[np.int64], rows_n: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    usable_n = torch.from_numpy(scan.usable_N[rows_n])
    raw_nD = torch.where(usable_n[:, None], torch.from_numpy(scan.sample_nD[np.searchsorted(kept_k, rows_n)]), 0.0)
    # Dividing by the largest entry first keeps the norm of huge and of tiny rows finite.
    largest_n1 = raw_nD.abs().amax(1, keepdim=True)
    scaled_nD = raw_nD / torch.where(largest_n1 > 0, largest_n1, 1.0)
    norm_n1 = torch.linalg.vector_norm(scaled_nD, dim=1, keepdim=True)
    return scaled_nD / torch.where(norm_n1 > 0, norm_n1, 1.0), usable_n


def mean_value(scores_n: Tensor, weights_Rn: Tensor) -> Value:
    """Mean of the scores (NaN: the item has none) with its interval."""
    lowest = 0.0 if bool((scores_n.nan_to_num() >= 0).all()) else -np.inf
    return estimate(float(scores_n.nanmean()), weighted_mean(scores_n, weights_Rn), lowest=lowest)


def estimate(mean: float, values_R: Tensor, *, lowest: float = -np.inf) -> Value:
    """A number and its resamples, moved so that their mean is the number: a resample repeats items, which biases it."""
    # A resample may hold one item only, which has no other item to be compared with.
    values_R = torch.where(torch.isfinite(values_R), values_R, torch.nan)
    if not np.isfinite(mean) or bool(torch.isnan(values_R).all()):
        return Value(mean, float("nan"), float("nan"), values_R)
    values_R = values_R - values_R.nanmean() + mean
    low, high = percentile_interval(values_R, LEVEL)
    return Value(mean, max(lowest, min(low, mean)), max(high, mean), values_R)


def joined(values: list[Value]) -> Value | None:
    """Mean of several numbers of the same items, resample by resample."""
    known = [value for value in values if np.isfinite(value.mean)]
    if not known:
        return None
    values_R = torch.stack([value.values_R for value in known]).nanmean(0)
    lowest = 0.0 if all(value.low >= 0 for value in known) else -np.inf
    return estimate(float(np.mean([value.mean for value in known])), values_R, lowest=lowest)


def plain(value: Any) -> Any:
    """Numbers for JSON: a `Value` as mean, low and high."""
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
