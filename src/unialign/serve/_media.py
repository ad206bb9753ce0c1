"""Media of requests: recognized by their content, checked by their header, and decoded in memory."""

import io
from typing import Any, Literal

import numpy as np

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.config import ServeConfig
from unialign.errors import MediaError
from unialign.media import Audio, MediaLimits, decode
from unialign.serve._errors import ApiError

__all__ = ["kind_of_file", "read_media"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_SOUNDS = ("WAV", "WAVEX", "FLAC", "OGG")
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_BLOCK = 1 << 16


def kind_of_file(content: bytes) -> Literal["image", "audio"] | None:
    """Return the kind of a file by its first bytes, or None."""
    head = content[:16]
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image"
    if head[:4] in (b"fLaC", b"OggS") or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return "audio"
    return None


def read_media(content: bytes, settings: ServeConfig, *, field: str) -> tuple[Literal["image", "audio"], Any]:
    """Decode an image to (H, W, 3) uint8 pixels, or a sound to an `Audio`.

    Raises:
        ApiError: the file is too large (413), of another type (415), or broken, too long or has too many pixels (422).
    """
    if len(content) > settings.file_bytes:
        limit = settings.file_bytes
        raise ApiError(413, "file_too_large", f"the file is larger than {limit:,} bytes", field=field, limit=limit)
    if not content:
        raise ApiError(422, "broken_media", "the file is empty", field=field)
    kind = kind_of_file(content)
    if kind is None:
        known = "a picture (PNG, JPEG, WebP or GIF) or a sound (WAV, FLAC or OGG)"
        raise ApiError(415, "unknown_media", f"the file is not {known}", field=field)
    try:
        return kind, _image(content, settings, field) if kind == "image" else _sound(content, settings, field)
    except MediaError as error:
        code = {"too-many-pixels": "too_many_pixels", "too-long": "too_long"}.get(error.code, "broken_media")
        raise ApiError(422, code, error.detail, field=field) from None


def _image(content: bytes, settings: ServeConfig, field: str) -> Any:
    pil = optional_module("PIL.Image", "pictures of requests", "serve")
    try:
        with pil.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except pil.DecompressionBombError:
        width, height = settings.pixels + 1, 1
    except Exception:  # malicious input may raise any exception in the parser
        raise ApiError(415, "not_an_image", "the file is not a readable picture", field=field) from None
    if width * height > settings.pixels:
        raise ApiError(
            422,
            "too_many_pixels",
            f"the picture has more than {settings.pixels:,} pixels",
            field=field,
            limit=settings.pixels,
        )
    return decode(content, "image", limits=MediaLimits(pixels=settings.pixels, bytes=settings.file_bytes))


def _sound(content: bytes, settings: ServeConfig, field: str) -> Audio:
    """Read a sound in blocks, so that a false length in the header causes no large allocation."""
    soundfile = optional_module("soundfile", "sounds of requests", "serve")
    try:
        sound = soundfile.SoundFile(io.BytesIO(content))
    except Exception:  # malicious input may raise any exception in the parser
        raise ApiError(415, "not_a_sound", "the file is not a readable sound", field=field) from None
    with sound:
        if sound.format not in _SOUNDS:
            raise ApiError(415, "not_a_sound", "the sound must be WAV, FLAC or OGG", field=field)
        if sound.channels > settings.sound_channels:
            limit = settings.sound_channels
            raise ApiError(
                422, "too_many_channels", f"the sound has {sound.channels} channels", field=field, limit=limit
            )
        rate = int(sound.samplerate)
        if not 1_000 <= rate <= 384_000:
            raise ApiError(422, "broken_media", f"the sample rate is {rate}, expected 1,000 to 384,000", field=field)
        most = int(settings.sound_seconds * rate)
        blocks: list[np.ndarray] = []
        count = 0
        try:
            while len(block := sound.read(min(_BLOCK, most + 1 - count), dtype="float32", always_2d=True)):
                blocks.append(block.mean(1))
                count += len(block)
                if count > most:
                    raise ApiError(
                        422,
                        "too_long",
                        f"the sound is longer than {settings.sound_seconds:g} s",
                        field=field,
                        limit=settings.sound_seconds,
                    )
        except soundfile.SoundFileError as error:
            raise ApiError(422, "broken_media", one_line(str(error)), field=field) from None
    samples_T = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(samples_T):
        raise ApiError(422, "broken_media", "the sound has no samples", field=field)
    if not np.isfinite(samples_T).all():
        raise ApiError(422, "broken_media", "the sound has samples that are NaN or infinite", field=field)
    return Audio(samples_T, rate)
