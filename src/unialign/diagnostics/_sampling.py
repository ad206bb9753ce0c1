"""Sample the items to measure. They are drawn before any row is read, so that one pass over the files is enough.

Shapes: `N` items, `n` sampled items, `k` rows kept by the scan, `W` windows, `L` rows of a window, `D` dimension, `R`
resamples, `M` modalities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._scan import ModalityScan
from unialign.metrics import resample_weights
from unialign.readers import Collection

# Maximum number of cosines over all directions, about ten seconds of work on two cores: 2,048 items for 6 modalities,
# 493 for 24.
_MAX_COSINES = 2**27
# With this many items, the interval of a recall is at most 4.4 percentage points wide.
_MAX_ITEMS = 2048
# Memory limit for the sampled rows of all modalities, in float64.
_MAX_BYTES = 2**30
# Minimum number of items per pair of modalities; with fewer items, the numbers of the pair are mostly noise.
_PAIR_ITEMS = 512
# Number of consecutive rows in each window read to find row offsets.
_WINDOW = 32


@dataclass(frozen=True)
class ItemSample:
    rows_n: NDArray[np.int64]  # row numbers, ascending
    z: dict[str, Tensor]  # modality -> (n, D) float64 unit rows; 0 where not usable
    usable: dict[str, Tensor]  # modality -> (n,) bool
    checksums: dict[str, NDArray[np.uint64]]  # modality -> (n,) checksums of the rows
    ids_n: NDArray[np.int64]  # same-id items are positives of each other
    labels_n: NDArray[np.int64] | None  # class codes, -1 for unlabeled items; None without labels
    weights_Rn: Tensor  # multiplicity of each item in each resample; same-id items are resampled together
    kept_n: NDArray[np.int64]  # position of each item among the rows that the scans kept

    def common(self, a: str, b: str) -> Tensor:
        return (self.usable[a] & self.usable[b]).nonzero().flatten()


@dataclass(frozen=True)
class RowWindows:
    """Windows of consecutive rows: row numbers (W, L), and for each modality unit rows (W, L, D) and mask (W, L)."""

    rows_WL: NDArray[np.int64]
    z: dict[str, Tensor]
    usable: dict[str, Tensor]


def sample_size(data: Collection, requested: int | None) -> int:
    """Return the sample size: by default such that a diagnosis takes about ten seconds, and limited by memory."""
    directions = len(data.modalities) * (len(data.modalities) - 1)
    size = requested if requested is not None else min(_MAX_ITEMS, int((_MAX_COSINES / max(1, directions)) ** 0.5))
    total_dim = sum(modality.rows.shape[1] for modality in data.modalities.values())
    return max(1, min(size, data.items, _MAX_BYTES // (8 * total_dim)))


def draw_items(data: Collection, size: int, *, seed: int) -> NDArray[np.int64]:
    """Draw items with at least two modalities, and add items until each modality and each pair has 512 items, if
    available.
    """
    rng = np.random.default_rng(seed)
    present_MN = np.stack([modality.present_N for modality in data.modalities.values()])
    pool = np.flatnonzero(present_MN.sum(0) >= min(2, len(present_MN)))
    if not len(pool):
        pool = np.flatnonzero(present_MN.any(0))
    chosen = np.sort(rng.permutation(pool)[:size])
    if present_MN.all() or not len(pool):
        return chosen.astype(np.int64)
    taken_N = np.zeros(data.items, dtype=np.bool_)
    taken_N[chosen] = True
    groups = [present_MN[m] for m in range(len(present_MN))]
    groups += [present_MN[a] & present_MN[b] for a, b in combinations(range(len(present_MN)), 2)]
    for group_N in groups:
        missing = min(_PAIR_ITEMS, size) - int((group_N & taken_N).sum())
        if missing > 0:
            taken_N[rng.permutation(np.flatnonzero(group_N & ~taken_N))[:missing]] = True
    return np.flatnonzero(taken_N).astype(np.int64)


def window_rows(items: int, size: int) -> NDArray[np.int64]:
    """Return evenly spread windows with about `size` rows in total; all rows if there are fewer."""
    length = min(_WINDOW, items)
    windows = max(1, min(items, max(size, 8 * length)) // length)
    starts_W = np.linspace(0, items - length, windows).round().astype(np.int64)
    if windows * length + length > items:  # windows cover all rows: make them adjacent, drop an incomplete last one
        starts_W = np.arange(windows, dtype=np.int64) * length
    return starts_W[:, None] + np.arange(length)


def collect_sample(
    data: Collection,
    scans: Mapping[str, ModalityScan],
    kept_k: NDArray[np.int64],
    rows_n: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> ItemSample:
    z, usable = _unit_rows(scans, kept_k, rows_n)
    ids_n = rows_n if data.ids_N is None else data.ids_N[rows_n]
    return ItemSample(
        rows_n=rows_n,
        z=z,
        usable=usable,
        checksums={name: scan.checksums_N[rows_n] for name, scan in scans.items()},
        ids_n=ids_n,
        labels_n=None if data.labels_N is None else data.labels_N[rows_n],
        weights_Rn=resample_weights(ids_n, resamples=resamples, seed=seed),
        kept_n=np.searchsorted(kept_k, rows_n),
    )


def collect_windows(
    scans: Mapping[str, ModalityScan], kept_k: NDArray[np.int64], rows_WL: NDArray[np.int64]
) -> RowWindows:
    z, usable = _unit_rows(scans, kept_k, rows_WL)
    return RowWindows(rows_WL, z, usable)


def _unit_rows(
    scans: Mapping[str, ModalityScan], kept_k: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    z, usable = {}, {}
    for name, scan in scans.items():
        usable[name] = torch.from_numpy(scan.usable_N[rows])
        kept = torch.from_numpy(scan.kept_kD[np.searchsorted(kept_k, rows)])
        raw = torch.where(usable[name][..., None], kept, 0.0)
        # Divide by the largest entry first to prevent overflow and underflow in the norms.
        largest = raw.abs().amax(-1, keepdim=True)
        scaled = raw / torch.where(largest > 0, largest, 1.0)
        norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
        z[name] = scaled / torch.where(norm > 0, norm, 1.0)
    return z, usable
