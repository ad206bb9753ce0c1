"""Project the rows of all modalities jointly onto their first two principal axes.

Shapes: `N` items, `d` drawn items, `p` rows of the drawn items over all modalities, `D` dimension.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MAX_POINTS = 2400  # summed over all modalities


def drawn_places(items: int, modalities: int) -> NDArray[np.int64]:
    """Return evenly spaced positions of the items that a map shows."""
    drawn = min(items, max(50, _MAX_POINTS // modalities))
    return np.linspace(0, items - 1, drawn).astype(np.int64)


def principal_map(z: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `map`, the coordinates [x, y] of each item by modality (None where absent), and `explained`, the fraction
    of the variance on each axis; empty for fewer than 2 dims or 3 items.

    Args:
        z: modality -> (d, D) rows.
        present: modality -> (d,) bool.
    """
    rows_pD = torch.cat([z_dD[present[name]] for name, z_dD in z.items()])
    if rows_pD.shape[1] < 2 or len(next(iter(z.values()))) < 3 or len(rows_pD) == 0:
        return {}
    mean_D = rows_pD.mean(0)
    axes_D2, explained = _principal_axes(rows_pD - mean_D)
    points = {name: _points((z_dD - mean_D) @ axes_D2, present[name]) for name, z_dD in z.items()}
    return {"map": points, "explained": explained}


def _points(xy_d2: Tensor, present_d: Tensor) -> list[list[float] | None]:
    points = zip(xy_d2.tolist(), present_d.tolist(), strict=True)
    return [[round(x, 4), round(y, 4)] if present else None for (x, y), present in points]


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
