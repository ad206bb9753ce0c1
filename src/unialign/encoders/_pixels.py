"""Resize images with Pillow, and the input of the Open-NSFW network.

Shapes: `H`, `W` height and width of an image, `S` side of a square image.
"""

import io
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module

__all__ = ["Fit", "OpenNsfwPixels", "SquarePixels", "pillow"]

Fit = Literal["pad", "crop", "stretch"]


@dataclass(frozen=True)
class SquarePixels:
    """Resize an image (H, W, 3) to a square: `pixels` (3, S, S) uint8.

    Attributes:
        size: side S.
        fit: `pad` adds white bars, `crop` cuts the longer sides, `stretch` changes the aspect ratio.
        resample: filter of Pillow: `bilinear` or `bicubic`.
    """

    size: int
    fit: Fit = "pad"
    resample: str = "bicubic"

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {"pixels": np.ascontiguousarray(self.square(image).transpose(2, 0, 1))}

    def square(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        library = pillow()
        picture = library.fromarray(np.ascontiguousarray(image))
        resample = library.Resampling[self.resample.upper()]
        if self.fit == "crop":
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            box = (left, top, left + side, top + side)
            return np.asarray(picture.resize((self.size, self.size), resample, box=box))
        if self.fit == "stretch":
            return np.asarray(picture.resize((self.size, self.size), resample))
        scale = self.size / max(picture.size)
        width, height = (max(round(side * scale), 1) for side in picture.size)
        square = np.full((self.size, self.size, 3), 255, np.uint8)
        left, top = (self.size - width) // 2, (self.size - height) // 2
        square[top : top + height, left : left + width] = np.asarray(picture.resize((width, height), resample))
        return square

    def to_json(self) -> dict[str, Any]:
        return {"type": "square-pixels", "backend": "pillow", **asdict(self)}


@dataclass(frozen=True)
class OpenNsfwPixels:
    """Map an image to `input` (224, 224, 3) float32 in the order blue, green, red, minus the means of the training set.

    The network was trained with JPEG files of 256 x 256 pixels, so the image is compressed once.
    """

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        library = pillow()
        picture = library.fromarray(np.ascontiguousarray(image)).resize((256, 256), library.Resampling.BILINEAR)
        file = io.BytesIO()
        picture.save(file, format="JPEG")
        file.seek(0)
        decoded = np.asarray(library.open(file).convert("RGB"), np.float32)[16:240, 16:240]
        return {"input": decoded[..., ::-1] - np.array([104, 117, 123], np.float32)}

    def to_json(self) -> dict[str, Any]:
        return {"type": "open-nsfw", "backend": "pillow"}


def pillow() -> Any:
    return optional_module("PIL.Image", "encoding images", "media")
