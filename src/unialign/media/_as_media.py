"""Convert values passed by callers to decoded media."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_choice
from unialign._optional import optional_module
from unialign.errors import ConfigError, MediaError
from unialign.media._decode import decode, decode_stream
from unialign.media._decoding import Decoding
from unialign.media._files import locate_anywhere, open_range
from unialign.media._frame_choice import chosen_frames
from unialign.media._image import check_pixels, decode_pil, image_pixels
from unialign.media._kinds import KINDS, Audio, Kind, Media, Video
from unialign.media._limits import MediaLimits
from unialign.media._resampling import collect_audio
from unialign.media._text import text_of
from unialign.media._vector import as_vector
from unialign.media._video import check_clip_size

__all__ = ["as_media"]

Array = NDArray[Any]

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:")
_EXPECTED = {
    "image": "a path, bytes, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)",
    "text": "a string, or a pathlib.Path or bytes of UTF-8",
    "audio": "a path, bytes, (array, rate), or {'array': array, 'sampling_rate': rate}",
    "video": "a path, bytes, or a uint8 array (T, H, W, 3)",
    "array": "numbers, or a pathlib.Path or bytes of a .npy file",
}


def as_media(
    value: Any, kind: Kind, *, limits: MediaLimits | None = None, decoding: Decoding | None = None
) -> Media | None:
    """Convert a file, encoded bytes or a decoded value to media.

    Args:
        value: for all kinds a `pathlib.Path`, or the bytes of a file. A string is the text for the kind `text`, and a
            path otherwise. Images: also a PIL image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Audio:
            also an array (T,) or (T, channels) with its rate, as `(array, rate)` or
            `{"array": array, "sampling_rate": rate}`; integers are scaled by their range. Video: also a uint8 array
            (T, H, W, 3). Array: also a sequence of numbers. Arrays may be NumPy arrays or torch tensors, and paths may
            also be given as `{"bytes": ..., "path": ...}`. Decoded media and None are returned unchanged.
        kind: kind of media.
        limits: limits on the size. Default: `MediaLimits()`.
        decoding: options of decoding. Default: `Decoding()`.

    Returns:
        See `load_cell`.

    Raises:
        MediaError: the value is broken, or is a URL; the error has a code.
        ConfigError: the kind is unknown, or the type of the value is not supported for this kind.
        OSError: see `load_cell`.
        MissingDependencyError: an optional package is not installed.
    """
    check_choice("kind", kind, KINDS)
    limits, decoding = limits or MediaLimits(), decoding or Decoding()
    if isinstance(value, Mapping) and value and value.keys() <= {"bytes", "path"}:
        # The form in which the library `datasets` returns media that are not decoded.
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        return None
    if isinstance(value, str) and kind == "text":
        return text_of(value, limits)
    if isinstance(value, str | os.PathLike):
        return _from_file(os.fspath(value), kind, limits, decoding)
    if isinstance(value, bytes | bytearray | memoryview):
        return decode(value, kind, limits=limits, decoding=decoding)
    found = _decoded(value, kind, limits, decoding)
    if found is None:
        raise ConfigError(f"a value of kind {kind!r} must be {_EXPECTED[kind]}, got {type(value).__name__}")
    return found


def _from_file(file: str, kind: Kind, limits: MediaLimits, decoding: Decoding) -> Media | None:
    if not isinstance(file, str):
        raise ConfigError(f"a path must be a string or pathlib.Path, got {file!r:.80}")
    if _URL.match(file):
        raise MediaError("not-a-file", "a URL, which is not downloaded; download it and pass the file", file[:200])
    with open_range(locate_anywhere(file), file, limits) as (stream, size):
        try:
            return decode_stream(stream, size, kind, limits, decoding)
        except MediaError as error:
            raise MediaError(error.code, error.detail, file) from None


def _decoded(value: Any, kind: Kind, limits: MediaLimits, decoding: Decoding) -> Media | None:
    """Convert a value to media of a kind; return None if the type of the value does not fit."""
    if kind == "audio":
        return _audio(value, limits, decoding)
    if kind == "image" and _is_a(value, "PIL.Image", "Image"):
        return decode_pil(value, limits, decoding)
    array = _array(value.frames if kind == "video" and isinstance(value, Video) else value)
    if kind == "image" and array is not None:
        return _image(array, limits, decoding)
    if kind == "video" and array is not None:
        return _video(array, limits, decoding)
    if kind == "array" and (array is not None or isinstance(value, Sequence)) and not isinstance(value, str):
        return as_vector(value if array is None else array, decoding)
    return None


def _is_a(value: Any, module: str, name: str) -> bool:
    """Return whether a value is an instance of a class, without importing the module of the class."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _array(value: Any) -> Array | None:
    if _is_a(value, "torch", "Tensor"):
        # NumPy has no bfloat16.
        return np.asarray((value.float() if str(value.dtype) == "torch.bfloat16" else value).detach().cpu().numpy())
    return np.asarray(value) if hasattr(value, "__array__") else None


def _image(pixels: Array, limits: MediaLimits, decoding: Decoding) -> Array:
    if pixels.dtype != np.uint8:
        raise MediaError("wrong-shape", f"an image array of type {pixels.dtype}, expected uint8")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        hint = "; channels must be last" if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) else ""
        raise MediaError("wrong-shape", f"an image array of shape {pixels.shape}, expected (H, W, 1, 3 or 4){hint}")
    check_pixels(pixels.shape[1], pixels.shape[0], limits)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 3:
        return np.array(pixels)
    pil = optional_module("PIL.Image", "images with transparency", "media")
    return image_pixels(pil.fromarray(np.ascontiguousarray(pixels)), decoding.background)


def _audio(value: Any, limits: MediaLimits, decoding: Decoding) -> Audio | None:
    if isinstance(value, Audio):
        value = (value.samples, value.rate)
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys():
        value = (value["array"], value["sampling_rate"])
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    samples, rate = value
    array = np.asarray(samples) if isinstance(samples, list) else _array(samples)
    if array is None or not isinstance(rate, Integral | float) or rate != int(rate):
        return None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise MediaError("wrong-shape", f"samples of shape {array.shape} and type {array.dtype}, expected (T,) numbers")
    if array.shape[1] > max(1, len(array)):
        raise MediaError("wrong-shape", f"samples of shape {array.shape}, expected (T, channels); pass the transpose")
    return collect_audio([_full_scale(array)], int(rate), limits, decoding, decoding.seconds)


def _full_scale(array: Array) -> Array:
    """Return float32 samples with a full scale of 1."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    scale = 1 << array.dtype.itemsize * 8 - 1
    centered = array.astype(np.float64) - (scale if array.dtype.kind == "u" else 0)
    return (centered / scale).astype(np.float32)


def _video(frames: Array, limits: MediaLimits, decoding: Decoding) -> Video:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise MediaError(
            "wrong-shape", f"frames of shape {frames.shape} and type {frames.dtype}, expected uint8 (T, H, W, 3)"
        )
    check_pixels(frames.shape[2], frames.shape[1], limits)
    chosen = chosen_frames(len(frames), decoding.frames, decoding.seed)
    check_clip_size((len(chosen), *frames.shape[1:]), limits)
    return Video(frames[chosen])
