"""Convert the values that callers pass to decoded media."""

from typing import Any

from unialign.media._decoding import Decoding
from unialign.media._kinds import Kind, Media
from unialign.media._limits import MediaLimits

__all__ = ["as_media"]


def as_media(
    value: Any, kind: Kind, *, limits: MediaLimits | None = None, decoding: Decoding | None = None
) -> Media | None:
    """Convert a file, encoded bytes or a decoded value to media.

    Args:
        value: for all kinds a `pathlib.Path`, or the bytes of a file. Strings are paths, but texts for the kind `text`.
            Images: also PIL images and uint8 arrays (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Audio: also an array (T,)
            or (T, channels) with its rate, as `(array, rate)` or `{"array": array, "sampling_rate": rate}`. Video: also
            uint8 arrays (T, H, W, 3). Array: also sequences of numbers. Arrays may be NumPy arrays or torch tensors.
            None stays None.
        kind: kind of media.
        limits: limits on the size; by default those of `MediaLimits()`.
        decoding: options of decoding; by default those of `Decoding()`.

    Returns:
        See `load_cell`.

    Raises:
        MediaError: the value is broken; the error has a code.
        ConfigError: the type of the value is not supported for this kind.
        OSError: see `load_cell`.
        MissingDependencyError: an optional package is not installed.
    """
    raise NotImplementedError
