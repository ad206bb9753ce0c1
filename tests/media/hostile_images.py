"""Hostile images."""

import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from media.hostile_case import Cases
from media.media_files import PIXELS, image_bytes, png_chunk, png_with
from unialign.media import Decoding

__all__ = ["CASES"]

CASES = Cases()

WHITE = np.full((4, 4, 3), 255, np.uint8)
_RED = np.zeros((4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
_GREY_16 = (np.arange(16).reshape(4, 4) * 4369).astype(np.uint16)
_png = image_bytes(PIXELS, "PNG")


def _webp_canvas(width: int, height: int) -> bytes:
    """Return a WebP animation with a tiny frame on a large canvas."""
    frame = image_bytes(_RED, "WEBP", lossless=True)[12:]
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    part = bytes(6) + (3).to_bytes(3, "little") * 2 + bytes([100, 0, 0, 0]) + frame
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + sizes
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(part)) + part
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _avif_size(width: int, height: int) -> bytes:
    data = bytearray(image_bytes(PIXELS, "AVIF"))
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", width, height)
    return bytes(data)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _frames(suffix: str, **options: Any) -> bytes:
    """Return a red image that is followed by white ones."""
    rest = [Image.fromarray(WHITE), Image.fromarray(WHITE)]
    return image_bytes(Image.fromarray(_RED), suffix, save_all=True, append_images=rest, **options)


def _palette() -> bytes:
    """Return a palette image in which the first row is transparent."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.paste(0, (0, 0, 4, 1))
    return image_bytes(image, "PNG", transparency=0)


def _alpha(mode: str) -> bytes:
    """Return a black image in which the first row is transparent."""
    image = Image.new(mode, (4, 4))
    image.putalpha(Image.fromarray(np.where(np.arange(4)[:, None] == 0, np.zeros(4), 255).astype(np.uint8)))
    return image_bytes(image, "PNG")


_BOMB = zlib.compress(bytes(1 << 26), 9)
_WHITE_ROW = np.where((np.arange(4) == 0)[:, None, None], 255, np.zeros((4, 4, 3))).astype(np.uint8)
_RED_BELOW = np.where((np.arange(4) == 0)[:, None, None], WHITE, _RED)
_HUGE_PNG = png_with(width=40_000, height=40_000, pixels=b"")
_HUGE_GIF = bytearray(image_bytes(_RED, "GIF"))
_HUGE_GIF[6:10] = struct.pack("<HH", 65535, 65535)
_CMYK = np.zeros((4, 4, 4), np.uint8) + np.array([0, 51, 255, 51], np.uint8)
_BROKEN_EXIF = b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff" + bytes(range(40))
_jpeg = image_bytes(np.full((32, 32, 3), 128, np.uint8), "JPEG", exif=_BROKEN_EXIF)

CASES.add("truncated.png", "image", "truncated", _png[: len(_png) // 2])
CASES.add("truncated.jpg", "image", "truncated", image_bytes(PIXELS, "JPEG")[:-200])
CASES.add("truncated.webp", "image", "truncated", image_bytes(PIXELS, "WEBP")[:-100])
CASES.add("truncated.gif", "image", "truncated", image_bytes(PIXELS, "GIF")[:900])
CASES.add("truncated.bmp", "image", "truncated", image_bytes(PIXELS, "BMP")[:900])
CASES.add("truncated.ppm", "image", "truncated", image_bytes(PIXELS, "PPM")[:900])
CASES.add("huge.png", "image", "too-many-pixels", _HUGE_PNG)
CASES.add("huge.gif", "image", "too-many-pixels", bytes(_HUGE_GIF))
CASES.add("huge.webp", "image", "too-many-pixels", _webp_canvas(16384, 16384))
CASES.add("large.webp", "image", "too-many-pixels", _webp_canvas(12000, 12000))
CASES.add("huge.avif", "image", "undecodable", _avif_size(40_000, 40_000))
CASES.add("large.avif", "image", "too-many-pixels", _avif_size(12_000, 12_000))
CASES.add("huge.ppm", "image", "too-many-pixels", b"P6 40000 40000 255\n" + bytes(99))
CASES.add("eps.png", "image", "undecodable", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
CASES.add(
    "svg.png",
    "image",
    "undecodable",
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
)
CASES.add("text.png", "image", "undecodable", b"no image\n" * 20)
CASES.add("profile-bomb.png", "image", "undecodable", png_with(png_chunk(b"iCCP", b"a\0\0" + _BOMB)))
CASES.add("text-bomb.png", "image", "undecodable", png_with(png_chunk(b"zTXt", b"a\0\0" + _BOMB)))
CASES.add("pixel-bomb.png", "image", np.zeros((4, 4, 3), np.uint8), png_with(pixels=bytes(1 << 26)))
# Pillow does not notice that rows are missing if the compressed data ends properly.
CASES.add("few-rows.png", "image", np.zeros((200, 4, 3), np.uint8), png_with(height=200, pixels=bytes(50)))
CASES.add("broken-checksum.png", "image", "undecodable", _png.replace(_png[29:33], b"\0\0\0\0", 1))
CASES.add("broken-exif.jpg", "image", np.full((32, 32, 3), 128, np.uint8), _jpeg)
for _suffix, _options in (
    ("PNG", {}),
    ("TIFF", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {"compression": "tiff_lzw"}),
):
    _name = f"turned-{len(_options)}.{_suffix.lower()}"
    CASES.add(_name, "image", np.rot90(PIXELS, -1), image_bytes(PIXELS, _suffix, exif=_exif(6), **_options))
CASES.add("mirrored.png", "image", PIXELS[:, ::-1], image_bytes(PIXELS, "PNG", exif=_exif(2)))
CASES.add("orientation-99.png", "image", PIXELS, image_bytes(PIXELS, "PNG", exif=_exif(99)))
CASES.add("pages.tiff", "image", _RED, _frames("TIFF"))
CASES.add("animated.webp", "image", _RED, _frames("WEBP", lossless=True))
CASES.add("animated.gif", "image", _RED, _frames("GIF"))
CASES.add("animated.png", "image", _RED, _frames("PNG"))
CASES.add(
    "cmyk.tiff",
    "image",
    np.array([204, 163, 0], np.uint8) + 0 * _RED,
    image_bytes(Image.fromarray(_CMYK, "CMYK"), "TIFF"),
)
CASES.add(
    "cmyk.jpg",
    "image",
    np.array([204, 163, 0], np.uint8) + 0 * _RED,
    image_bytes(Image.fromarray(_CMYK, "CMYK"), "JPEG"),
    tolerance=4,
)
CASES.add(
    "grey-16.png", "image", np.repeat((_GREY_16 // 257).astype(np.uint8)[..., None], 3, 2), image_bytes(_GREY_16, "PNG")
)
CASES.add(
    "grey-16.tiff",
    "image",
    np.repeat((_GREY_16 // 257).astype(np.uint8)[..., None], 3, 2),
    image_bytes(_GREY_16, "TIFF"),
)
CASES.add("grey-16.ppm", "image", np.full((1, 1, 3), 128, np.uint8), b"P5 1 1 65535\n\x80\x80")
CASES.add("grey-16-clear.png", "image", WHITE, image_bytes(Image.fromarray(_GREY_16 * 0), "PNG", transparency=0))
CASES.add("grey-32.tiff", "image", "undecodable", image_bytes(_GREY_16.astype(np.int32) * 100, "TIFF"))
CASES.add("float.tiff", "image", "undecodable", image_bytes(np.full((4, 4), np.nan, np.float32), "TIFF"))
CASES.add("bits.png", "image", WHITE, image_bytes(Image.new("1", (4, 4), 1), "PNG"))
CASES.add("palette.png", "image", _RED_BELOW, _palette())
CASES.add("grey-alpha.png", "image", _WHITE_ROW, _alpha("L"))
CASES.add("alpha.png", "image", _WHITE_ROW, _alpha("RGB"))
CASES.add("clear-color.png", "image", WHITE, image_bytes(Image.fromarray(_RED), "PNG", transparency=(255, 0, 0)))
CASES.add(
    "background.png",
    "image",
    WHITE // 255 * np.array([1, 2, 3], np.uint8),
    image_bytes(Image.new("LA", (4, 4)), "PNG"),
    decoding=Decoding(background=(1, 2, 3)),
)
