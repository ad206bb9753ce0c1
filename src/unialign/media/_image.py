"""Decode images with Pillow.

JPEG files are never decoded at a reduced size, since this changes the pixels.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import MediaError, UniAlignError
from unialign.media._decoding import Decoding
from unialign.media._limits import MediaLimits

__all__ = ["FORMATS", "check_pixels", "decode_image", "decode_pil", "image_pixels"]

# Formats that Pillow is allowed to open. Other formats, such as EPS, would start another program or have no fixed size
# in pixels.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
_ORIENTATION = 0x0112
# Maximum number of pixels that are converted at once.
_BAND = 1 << 20
_FULL_SCALE_16 = 65535
_BYTE_OF_16 = _FULL_SCALE_16 // 255


def decode_image(stream: BinaryIO, limits: MediaLimits, decoding: Decoding) -> NDArray[np.uint8]:
    pil = optional_module("PIL.Image", "decoding images", "media")
    with _pillow_errors(pil), pil.open(stream, formats=FORMATS) as image:
        return decode_pil(image, limits, decoding)


def decode_pil(image: Any, limits: MediaLimits, decoding: Decoding) -> NDArray[np.uint8]:
    pil = optional_module("PIL.Image", "decoding images", "media")
    with _pillow_errors(pil):
        # Check the size in the header first, so that no memory is allocated for an image that is too large.
        _check_size(image, limits)
        image.load()
        _check_size(image, limits)
        return image_pixels(image, decoding.background)


@contextlib.contextmanager
def _pillow_errors(pil: Any) -> Iterator[None]:
    try:
        yield
    except (UniAlignError, MemoryError):
        raise
    except pil.UnidentifiedImageError:
        raise MediaError("undecodable", f"not an image in one of the formats {', '.join(FORMATS)}") from None
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        raise MediaError("too-many-pixels", one_line(error)) from None
    except Exception as error:  # malicious input may raise any exception in the parser
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise MediaError("truncated" if truncated else "undecodable", one_line(error) or type(error).__name__) from None


def check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    if width * height > limits.pixels:
        raise MediaError("too-many-pixels", f"{width} x {height} pixels, expected at most {limits.pixels:,} in total")


def image_pixels(image: Any, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Convert an image to RGB, and rotate it upright."""
    width, height = image.size
    step = max(1, _BAND // width)
    if step >= height:
        pixels_HW3 = _rgb(image, background)
    else:
        # Convert in bands, since conversions need several copies of their input.
        pixels_HW3 = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, step):
            bottom = min(height, top + step)
            pixels_HW3[top:bottom] = _rgb(image.crop((0, top, width, bottom)), background)
    return np.ascontiguousarray(_upright(pixels_HW3, _orientation(image)))


def _upright(pixels_HW3: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in (5, 6, 7, 8):
        # The first row in the file is a column of the image.
        pixels_HW3 = pixels_HW3.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels_HW3 = pixels_HW3[:, ::-1]
    return pixels_HW3[::-1] if orientation in (3, 4, 7, 8) else pixels_HW3


def _check_size(image: Any, limits: MediaLimits) -> None:
    width, height = image.size
    check_pixels(width, height, limits)


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF data are often damaged even if the image is intact
        return 1


def _rgb(image: Any, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise MediaError("undecodable", "the pixels are floating-point numbers of unknown range; save 8 or 16 bits")
    if image.mode.startswith("I"):
        return _grey_16(image, background)
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    # Pillow converts La only to LA.
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    pil = optional_module("PIL.Image", "decoding images", "media")
    canvas = pil.new("RGB", rgba.size, background)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(canvas)


def _grey_16(image: Any, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Convert 16-bit gray values, which Pillow would clip at 255."""
    grey_HW = np.asarray(image)
    if grey_HW.min() < 0 or grey_HW.max() > _FULL_SCALE_16:
        raise MediaError("undecodable", f"gray values of {grey_HW.min()} to {grey_HW.max()}, expected 0 to 65535")
    byte_HW = ((grey_HW.astype(np.uint32) + _BYTE_OF_16 // 2) // _BYTE_OF_16).astype(np.uint8)
    pixels_HW3 = np.repeat(byte_HW[..., None], 3, axis=2)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        pixels_HW3[grey_HW == clear] = background
    return pixels_HW3
