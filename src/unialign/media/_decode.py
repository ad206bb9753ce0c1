"""Decode bytes or values to NumPy arrays."""

from collections.abc import Sequence

from unialign.media._decoding import Decoding
from unialign.media._kinds import Kind, Media
from unialign.media._limits import MediaLimits

__all__ = ["decode"]


def decode(
    data: bytes | str | Sequence[float],
    kind: Kind,
    *,
    limits: MediaLimits | None = None,
    decoding: Decoding | None = None,
    name: str = "",
) -> Media | None:
    """Decode an encoded file in memory, a text or a vector.

    Args:
        data: bytes of a file; for the kind `text` also a string, for the kind `array` also a sequence of numbers.
        kind: kind of media.
        limits: limits on the size; by default those of `MediaLimits()`.
        decoding: options of decoding; by default those of `Decoding()`.
        name: name of the data, for messages.

    Returns:
        See `load_cell`.

    Raises:
        MediaError: the data is broken; the error has a code.
        MissingDependencyError: an optional package is not installed.
    """
    raise NotImplementedError
