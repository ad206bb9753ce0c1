"""The input of the Open-NSFW network."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._pixels import pillow

__all__ = ["OpenNsfwPixels"]


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
