"""What an encoder requests from a decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from unialign.media._kinds import Kind

__all__ = ["VERSIONS", "Decoding"]

# Version of the decoder of each kind. A change that alters decoded values increases the number.
VERSIONS: Mapping[Kind, int] = MappingProxyType({"image": 1, "text": 1, "audio": 1, "video": 1, "array": 1})


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Options of decoding; each kind of media uses those that are listed for it.

    Args:
        rate: audio: samples per second of the result; by default that of the file.
        seconds: audio: longest duration that is read, from the start of the sound or of its span; by default all of it.
        frames: video: number of frames. The frames of the video are divided into this many runs of equal length, and the
            frame in the middle of each run is taken; videos with fewer frames repeat frames. By default all frames.
        seed: video: take a random frame of each run, drawn with this seed, instead of the one in the middle.
        background: image: RGB color behind transparent pixels, each 0 to 255.
        dim: array: required length of the vector; by default any.
    """

    rate: int | None = None
    seconds: float | None = None
    frames: int | None = None
    seed: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    dim: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as a JSON object."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Decoding":
        """Return the options in a JSON object written by `to_json`.

        Raises:
            DataError: a name or value is invalid.
        """
        raise NotImplementedError
