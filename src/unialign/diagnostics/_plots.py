"""What the report draws: a map of the sample, and histograms of cosines. Small enough for `results.json`.

Shapes: `n` sampled items, `d` drawn ones, `p` of all modalities together, `D` width.
"""

from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.diagnostics._measure import Measured
from unialign.diagnostics._statistics import Sample

__all__ = ["sketch"]

_POINTS = 2400  # of all modalities together
_BINS = 60


def sketch(measured: Measured, sample: Sample) -> dict[str, Any]:
    """`map`: modality -> [x, y] or null for each drawn item; `cosines`: counts of true and random pairs."""
    if len({single.width for single in measured.singles.values()}) > 1:
        return {}
    names = list(measured.singles)
    together_n = np.zeros(len(sample.rows_n), dtype=np.bool_)
    for name in names:
        together_n |= sample.usable[name].numpy()
    places = np.flatnonzero(together_n)
    if len(places) < 3:
        return {}
    many = min(len(places), max(50, _POINTS // len(names)))
    places = places[np.linspace(0, len(places) - 1, many).astype(np.int64)]
    drawn_d = torch.from_numpy(places)
    has = {name: sample.usable[name][drawn_d] for name in names}
    rows = torch.cat([sample.z[name][drawn_d][has[name]] for name in names])
    mean_D = rows.mean(0)
    if len(mean_D) < 2:
        return {}
    axes, shares = _principal_axes(rows - mean_D)
    points = {}
    for name in names:
        xy_d2 = ((sample.z[name][drawn_d] - mean_D) @ axes).tolist()
        points[name] = [
            [round(x, 4), round(y, 4)] if ok else None for (x, y), ok in zip(xy_d2, has[name].tolist(), strict=True)
        ]
    return {
        "rows": sample.rows_n[places].tolist(),
        "map": points,
        "explained": shares,
        "cosines": {
            pair_name(a, b): _histograms(sample.z[a][drawn_d], sample.z[b][drawn_d], has[a] & has[b])
            for a, b in combinations(names, 2)
            if int((has[a] & has[b]).sum()) >= 3
        },
    }


def _principal_axes(centred_pD: Tensor) -> tuple[Tensor, list[float]]:
    """The two directions (D, 2) in which p rows vary most, and their shares of the variance."""
    rows, width = centred_pD.shape
    # Of the two Gram matrices with these eigenvalues the smaller one: a width may be 100,000.
    gram = centred_pD.mT @ centred_pD if width <= rows else centred_pD @ centred_pD.mT
    values, vectors = torch.linalg.eigh(gram)
    largest, axes = values.flip(0)[:2].clamp(min=0), vectors.flip(1)[:, :2]
    if width > rows:
        axes = torch.nn.functional.normalize(centred_pD.mT @ axes, dim=0)
    # An axis may face either way; this choice does not depend on the solver.
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0)[None]) < 0, -1.0, 1.0)
    return axes, (largest / values.clamp(min=0).sum().clamp(min=1e-30)).tolist()


def _histograms(x_dD: Tensor, y_dD: Tensor, both_d: Tensor) -> dict[str, Any]:
    """Counts over equal bins of [low, high] of the cosines of true pairs and of all other pairs."""
    cosine_dd = (x_dD[both_d] @ y_dD[both_d].mT).numpy()
    true_d = np.diagonal(cosine_dd)
    other = cosine_dd[~np.eye(len(cosine_dd), dtype=np.bool_)]
    low, high = float(min(true_d.min(), other.min())), float(max(true_d.max(), other.max()))
    low, high = (low, high) if high - low > 1e-6 else (low - 1e-3, high + 1e-3)
    return {"low": low, "high": high, "true": _counts(true_d, low, high), "random": _counts(other, low, high)}


def _counts(values: NDArray[np.float64], low: float, high: float) -> list[int]:
    counts: list[int] = np.histogram(values, _BINS, (low, high))[0].tolist()
    return counts
