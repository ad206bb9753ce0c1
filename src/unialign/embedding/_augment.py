"""Random augmentation of media before they are prepared. This module imports no torch.

Shapes: `H`, `W` height and width of an image, `T` samples of a sound.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unialign.media import Audio, Decoding, Kind, Media

__all__ = ["augmented", "augmented_decoding"]

# Minimum fraction of the image area that a random crop retains.
_SMALLEST_CROP = 0.8
_MOST_DECIBELS = 6.0
# Maximum shift of a sound as a fraction of its duration; zeros fill the gap.
_LARGEST_SHIFT = 0.05


def augmented_decoding(decoding: Decoding, kind: Kind, seed: int) -> Decoding:
    """Take random frames of a video."""
    return replace(decoding, seed=seed) if kind == "video" else decoding


def augmented(media: Media, seed: int) -> Media:
    """Crop and flip an image, or change the gain of a sound and shift it; other media are returned unchanged. Equal
    seeds give equal results.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    if isinstance(media, Audio):
        return Audio(_sound(media.samples, random), media.rate)
    if isinstance(media, np.ndarray) and media.ndim == 3:
        return _image(media, random)
    return media


def _image(image_HW3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    area, top, left, flip = random.random(4).tolist()
    side = (_SMALLEST_CROP + (1 - _SMALLEST_CROP) * area) ** 0.5
    height, width = (max(1, round(side * length)) for length in image_HW3.shape[:2])
    first_row = round(top * (image_HW3.shape[0] - height))
    first_column = round(left * (image_HW3.shape[1] - width))
    cropped = image_HW3[first_row : first_row + height, first_column : first_column + width]
    return np.ascontiguousarray(cropped[:, ::-1] if flip < 0.5 else cropped)


def _sound(samples_T: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    gain, shift = (2 * random.random(2) - 1).tolist()
    places = round(shift * _LARGEST_SHIFT * len(samples_T))
    shifted = np.zeros_like(samples_T)
    if places >= 0:
        shifted[places:] = samples_T[: len(samples_T) - places]
    else:
        shifted[:places] = samples_T[-places:]
    return shifted * np.float32(10 ** (gain * _MOST_DECIBELS / 20))
