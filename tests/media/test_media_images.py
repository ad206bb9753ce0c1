"""Test how images are turned and converted."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from media.media_files import PIXELS, image_bytes
from unialign.media import Decoding, decode


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_bytes(PIXELS, "PNG", exif=exif)
    found = decode(data, "image")
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(found, np.array(ImageOps.exif_transpose(image)))
    assert isinstance(found, np.ndarray)
    assert found.flags.c_contiguous
    assert found.flags.writeable


def test_large_images_are_converted_in_bands() -> None:
    """Bands of rows give the pixels of the whole image, in all modes."""
    random = np.random.default_rng(0)
    height, width = 700, 1700  # more than one band; the last is shorter
    grey = random.integers(0, 256, (height, width), dtype=np.uint8)
    alpha = random.integers(0, 256, (height, width), dtype=np.uint8)
    color = np.stack([grey, grey[::-1], alpha], axis=2)
    palette = Image.fromarray(grey).convert("P")
    images: dict[str, Any] = {
        "L": Image.fromarray(grey), "RGB": Image.fromarray(color), "P": palette,
        "1": Image.fromarray(grey).convert("1"),
        "RGBA": Image.fromarray(np.dstack([color, alpha])), "LA": Image.fromarray(np.stack([grey, alpha], 2)),
        "16": Image.fromarray(grey.astype(np.uint16) * 257),
    }  # fmt: skip
    background = np.array([10, 20, 30])
    for mode, image in images.items():
        found = decode(image_bytes(image, "PNG"), "image", decoding=Decoding(background=(10, 20, 30)))
        if mode in ("RGBA", "LA"):
            opaque = alpha[..., None] / 255
            expected = (color if mode == "RGBA" else grey[..., None]) * opaque + background * (1 - opaque)
            np.testing.assert_allclose(found, np.broadcast_to(expected, (height, width, 3)), atol=1)
        else:
            expected = np.repeat(grey[..., None], 3, 2) if mode == "16" else np.array(image.convert("RGB"))
            np.testing.assert_array_equal(found, expected)


def test_16_bit_grey_is_rounded_to_the_nearest_byte() -> None:
    grey = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    expected = np.round(grey / 257)
    for suffix in ("PNG", "TIFF"):
        found = decode(image_bytes(grey, suffix), "image")
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found[..., 0], expected)
