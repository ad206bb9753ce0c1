"""Data of the report's plots.

Shapes: `n` sampled items, `d` plotted items, `p` rows of the plotted items over all modalities, `D` dimension.
"""

from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.diagnostics._measure import Measurements
from unialign.diagnostics._sampling import ItemSample

_MAX_POINTS = 2400  # summed over all modalities
_BINS = 60


def sketch(measured: Measurements, sample: ItemSample) -> dict[str, Any]:
    """`map` holds [x, y] on the first two principal axes (None where absent), `cosines` the histograms of each pair.
    Empty for unequal dims or fewer than 3 items.
    """
    names = list(measured.modalities)
    position_n = np.flatnonzero(np.any([sample.usable[name].numpy() for name in names], axis=0))
    if len({m.dim for m in measured.modalities.values()}) > 1 or len(position_n) < 3:
        return {}
    drawn = min(len(position_n), max(50, _MAX_POINTS // len(names)))
    position_d = position_n[np.linspace(0, len(position_n) - 1, drawn).astype(np.int64)]
    at_d = torch.from_numpy(position_d)
    usable = {name: sample.usable[name][at_d] for name in names}
    z = {name: sample.z[name][at_d] for name in names}
    rows_pD = torch.cat([z[name][usable[name]] for name in names])
    mean_D = rows_pD.mean(0)
    if len(mean_D) < 2:
        return {}
    axes_D2, explained = _principal_axes(rows_pD - mean_D)
    return {
        "rows": sample.rows_n[position_d].tolist(),
        "map": {name: _points((z[name] - mean_D) @ axes_D2, usable[name]) for name in names},
        "explained": explained,
        "cosines": {
            pair_name(a, b): _histograms(z[a][usable[a] & usable[b]], z[b][usable[a] & usable[b]])
            for a, b in combinations(names, 2)
            if int((usable[a] & usable[b]).sum()) >= 3
        },
    }


def _points(xy_d2: Tensor, usable_d: Tensor) -> list[list[float] | None]:
    points = zip(xy_d2.tolist(), usable_d.tolist(), strict=True)
    return [[round(x, 4), round(y, 4)] if usable else None for (x, y), usable in points]


def _principal_axes(centered_pD: Tensor) -> tuple[Tensor, list[float]]:
    rows, dim = centered_pD.shape
    # Both Gram matrices have the same nonzero eigenvalues. Use the smaller one, since the dim may be 100,000.
    gram = centered_pD.mT @ centered_pD if dim <= rows else centered_pD @ centered_pD.mT
    values, vectors = torch.linalg.eigh(gram)
    largest, axes = values.flip(0)[:2].clamp(min=0), vectors.flip(1)[:, :2]
    if dim > rows:
        axes = torch.nn.functional.normalize(centered_pD.mT @ axes, dim=0)
    # Fix the arbitrary sign of each axis independently of the solver.
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0)[None]) < 0, -1.0, 1.0)
    return axes, (largest / values.clamp(min=0).sum().clamp(min=1e-30)).tolist()


def _histograms(x_dD: Tensor, y_dD: Tensor) -> dict[str, Any]:
    cosine_dd = (x_dD @ y_dD.mT).numpy()
    true_d = np.diagonal(cosine_dd)
    other = cosine_dd[~np.eye(len(cosine_dd), dtype=np.bool_)]
    low, high = float(min(true_d.min(), other.min())), float(max(true_d.max(), other.max()))
    low, high = (low, high) if high - low > 1e-6 else (low - 1e-3, high + 1e-3)
    true, random = (np.histogram(values, _BINS, (low, high))[0].tolist() for values in (true_d, other))
    return {"low": low, "high": high, "true": true, "random": random}
