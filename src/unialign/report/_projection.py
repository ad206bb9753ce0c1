"""Project a joint space to two dimensions by PCA.

Shapes: `N` items, `D` dimension.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unialign.report._folder import TestRows


@dataclass(frozen=True)
class PCAMap:
    points: Mapping[str, NDArray[np.float64]]  # modality -> (N, 2), NaN where absent
    explained: tuple[float, float]  # fraction of the variance on each axis


def pca_map(space: TestRows, *, like: PCAMap | None = None) -> PCAMap:
    """Compute the map; axes are oriented as in `like`, or else the largest loading of each axis is positive."""
    present = space.present
    rows = np.concatenate([z_ND[present[name]] for name, z_ND in space.z.items()])
    mean_D = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
    centered = rows - mean_D
    # Use eigenvectors of the D x D scatter matrix, which is cheaper than an SVD of all rows.
    values, vectors = np.linalg.eigh(centered.T @ centered)
    width = len(values)
    axes = np.zeros((width, 2))
    axes[:, : min(2, width)] = vectors[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, [0, 1]] < 0, -1.0, 1.0)
    points = {}
    for name, z_ND in space.z.items():
        points[name] = (z_ND - mean_D) @ axes
        points[name][~present[name]] = np.nan
    if like is not None:
        points = _mirrored(points, like.points)
    total = max(float(values.clip(0).sum()), 1e-30)
    fractions = [float(max(v, 0.0)) / total for v in values[::-1][:2]] + [0.0, 0.0]
    return PCAMap(points, (fractions[0], fractions[1]))


def _mirrored(
    points: dict[str, NDArray[np.float64]], like: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    if any(like[name].shape != xy.shape for name, xy in points.items()):
        return points
    agreement = sum((np.nansum(xy * like[name], axis=0) for name, xy in points.items()), np.zeros(2))
    return {name: xy * np.where(agreement < 0, -1.0, 1.0) for name, xy in points.items()}


def spread(count: int, wanted: int) -> list[int]:
    """Return the midpoints of `wanted` equal parts of `range(count)`."""
    wanted = min(count, wanted)
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]
