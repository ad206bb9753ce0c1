"""Inputs of ONNX graphs.

Shapes: `H`, `W` height and width of an image, `T` samples.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._pixels import Fit, SquarePixels
from unialign.encoders._processor import ImageSettings
from unialign.media import Audio

__all__ = ["NormalizedPixels", "Samples", "square_settings"]


@dataclass(frozen=True)
class FittedSettings(ImageSettings):
    """Images are fitted into a square before they are scaled."""

    fit: Fit = "pad"

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        assert self.size is not None
        return SquarePixels(self.size[0], self.fit)(image)


@dataclass(frozen=True)
class NormalizedPixels:
    """Map an image to `pixel_values`, (3, H, W) or, with `channels_last`, (H, W, 3), float32."""

    settings: ImageSettings
    channels_last: bool = False

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        pixels = self.settings(image)["pixels"]
        values = pixels.astype(np.float32)
        if self.settings.scale is not None:
            values = (pixels.astype(np.float64) * self.settings.scale).astype(np.float32)
        if self.settings.mean is not None and self.settings.std is not None:
            mean, std = (
                np.array(value, np.float32)[:, None, None] for value in (self.settings.mean, self.settings.std)
            )
            values = (values - mean) / std
        return {"pixel_values": np.ascontiguousarray(values.transpose(1, 2, 0)) if self.channels_last else values}

    def to_json(self) -> dict[str, Any]:
        return {"type": "normalized-pixels", "channels_last": self.channels_last, "image": self.settings.to_json()}


@dataclass(frozen=True)
class Samples:
    def __call__(self, sound: Audio) -> dict[str, NDArray[Any]]:
        return {"input_values": sound.samples}

    def to_json(self) -> dict[str, Any]:
        return {"type": "samples", **asdict(self)}


def square_settings(size: int, fit: Fit, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageSettings:
    whole = ImageSettings(None, (size, size), 3, None, 1 / 255, mean, std)
    return FittedSettings(**{**asdict(whole), "fit": fit})
