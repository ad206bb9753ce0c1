"""Features of colors, coarse pixels and edges of images.

Shapes: `S` side of the resized image, `B` bins.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._pixels import SquarePixels

__all__ = ["ColorFeatures"]

_SQUARE = SquarePixels(64, fit="pad", resample="bilinear")


@dataclass(frozen=True)
class ColorFeatures:
    """Map an image (H, W, 3) to the histogram of its colors, its coarse pixels and the directions of its edges.

    Each of the three parts has unit norm. The image is resized to 64 x 64.

    Attributes:
        levels: levels of each color channel in the histogram.
        grid: side of the grid of coarse pixels.
        cells: side of the grid of histograms of edge directions.
        directions: bins of the direction of an edge.
    """

    levels: int = 4
    grid: int = 8
    cells: int = 4
    directions: int = 8
    pixels: SquarePixels = field(default=_SQUARE)

    @property
    def dim(self) -> int:
        return self.levels**3 + 3 * self.grid**2 + self.cells**2 * self.directions

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        square = self.pixels.square(image)
        values = square.astype(np.float32) / 255
        parts = self._colors(values), self._coarse(values), self._edges(values.mean(-1))
        return {"features": np.concatenate([_unit(part) for part in parts])}

    def to_json(self) -> dict[str, Any]:
        return {"type": "color-features", **asdict(self), "pixels": self.pixels.to_json()}

    def _colors(self, values: NDArray[Any]) -> NDArray[Any]:
        # The square root reduces the weight of a uniform background.
        levels = np.minimum((values * self.levels).astype(np.int64), self.levels - 1)
        codes = (levels[..., 0] * self.levels + levels[..., 1]) * self.levels + levels[..., 2]
        counts = np.bincount(codes.ravel(), minlength=self.levels**3)
        return np.asarray(np.sqrt(counts / counts.sum()), np.float32)

    def _coarse(self, values: NDArray[Any]) -> NDArray[Any]:
        side = self.pixels.size // self.grid
        blocks = values.reshape(self.grid, side, self.grid, side, 3).mean((1, 3))
        return np.asarray(blocks - 0.5).ravel()

    def _edges(self, gray: NDArray[Any]) -> NDArray[Any]:
        down = np.diff(gray, axis=0, append=gray[-1:])
        right = np.diff(gray, axis=1, append=gray[:, -1:])
        strength = np.hypot(down, right)
        turn = (np.arctan2(down, right) / np.pi % 1 * self.directions).astype(np.int64) % self.directions
        side = self.pixels.size // self.cells
        cell = np.arange(self.pixels.size) // side
        place = (cell[:, None] * self.cells + cell[None, :]) * self.directions + turn
        total = np.bincount(place.ravel(), strength.ravel(), minlength=self.cells**2 * self.directions)
        return np.asarray(np.sqrt(total), np.float32)


def _unit(part: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(part / max(float(np.linalg.norm(part)), 1e-6), np.float32)
