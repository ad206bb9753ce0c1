"""Resize and crop images as the image processors of transformers do with Pillow. Does not import torch.

Shapes: `H`, `W` height and width of an image.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._pixels import pillow

__all__ = ["ImageSettings"]

# Largest ratio of the sides of an image that is resized as a whole.
_MOST_PROPORTION = 100


@dataclass(frozen=True)
class ImageSettings:
    """Map an image to `pixels` (3, H, W) uint8: resize, then crop around the center.

    The values are scaled and normalized on the device of the model, with `scale`, `mean` and `std`.

    Attributes:
        shortest: length of the shorter side after resizing, or None.
        size: height and width after resizing, or None. If both are None, images are not resized.
        resample: number of the filter in Pillow.
        crop: height and width of the crop, or None. Smaller images are filled with black.
        crop_start: how half a row or column is rounded: `floor`, as in transformers, or `even`, as in torchvision.
        scale: factor of the values before normalization, or None.
        mean, std: mean and divisor of each channel, or None.
    """

    shortest: int | None
    size: tuple[int, int] | None
    resample: int
    crop: tuple[int, int] | None
    scale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    crop_start: str = "floor"

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        resized = self._resize(np.ascontiguousarray(image))
        cropped = resized if self.crop is None else _center_crop(resized, *self.crop, even=self.crop_start == "even")
        return {"pixels": np.ascontiguousarray(cropped.transpose(2, 0, 1))}

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"type": "image-processor", "backend": "pillow", **listed}

    def _resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.shortest is not None:
            image = _without_ends(image)
            short, long = sorted(image.shape[:2])
            other = int(self.shortest * long / short)
            height, width = (other, self.shortest) if image.shape[1] <= image.shape[0] else (self.shortest, other)
        elif self.size is not None:
            height, width = self.size
        else:
            return image
        return np.asarray(pillow().fromarray(image).resize((width, height), self.resample))


def _without_ends(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the ends of a very long image, which the crop removes anyway, since they would be enlarged first."""
    rows, columns = image.shape[:2]
    longest = _MOST_PROPORTION * min(rows, columns)
    top, left = max((rows - longest) // 2, 0), max((columns - longest) // 2, 0)
    return np.ascontiguousarray(image[top : rows - top, left : columns - left])


def _center_crop(image: NDArray[np.uint8], height: int, width: int, *, even: bool) -> NDArray[np.uint8]:
    rows, columns = image.shape[:2]
    if rows < height or columns < width:
        filled = np.zeros((max(rows, height), max(columns, width), 3), np.uint8)
        # The odd row or column is at the start.
        top, left = (filled.shape[0] - rows + 1) // 2, (filled.shape[1] - columns + 1) // 2
        filled[top : top + rows, left : left + columns] = image
        top, left = (rows - height) // 2 + top, (columns - width) // 2 + left
        return filled[max(top, 0) : top + height, max(left, 0) : left + width]
    if even:
        top, left = round((rows - height) / 2), round((columns - width) / 2)
    else:
        top, left = (rows - height) // 2, (columns - width) // 2
    return image[top : top + height, left : left + width]
