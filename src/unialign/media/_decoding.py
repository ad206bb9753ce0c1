"""Options with which an encoder requires media to be decoded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from unialign._checks import check_integer, check_number
from unialign.errors import ConfigError, DataError
from unialign.media._kinds import Kind

__all__ = ["MAX_RATE", "VERSIONS", "Decoding"]

# Version of the decoder of each kind. A change that alters decoded values increases the number.
VERSIONS: Mapping[Kind, int] = MappingProxyType({"image": 1, "text": 1, "audio": 1, "video": 1, "array": 1})
# Maximum rate in samples per second. Conversion between rates that differ by a larger factor would take minutes.
MAX_RATE = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Options of decoding; each applies only to the kind of media named in its description.

    Args:
        rate: audio: samples per second of the result. Default: the rate of the file.
        seconds: audio: maximum duration that is read, from the start of the file or of the span. Default: no limit.
        frames: video: number of frames. The video is divided into this many segments of equal length, and the middle
            frame of each segment is used; videos with fewer frames repeat the last one. Default: all frames.
        seed: video: use a random frame of each segment, drawn with this seed, instead of the middle frame.
        background: image: RGB color behind transparent pixels, each 0 to 255.
        dim: array: required length of the vector. Default: any length.

    Raises:
        ConfigError: a value is out of range.
    """

    rate: int | None = None
    seconds: float | None = None
    frames: int | None = None
    seed: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    dim: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("rate", 1, MAX_RATE), ("frames", 1, 1 << 20), ("seed", 0, None), ("dim", 1, None)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), low=low, high=high)
        if self.seconds is not None:
            check_number("seconds", self.seconds, "a positive number", lambda x: 0 < x < math.inf)
        if not isinstance(self.background, tuple) or len(self.background) != 3:
            raise ConfigError(f"background must be a tuple of three integers, got {self.background!r}")
        for value in self.background:
            check_integer("each number of background", value, low=0, high=255)

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as a JSON object."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if _is_given(self, field)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Decoding":
        """Return the options in a JSON object written by `to_json`.

        Raises:
            DataError: a name or value is invalid.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, Mapping) or not value.keys() <= known:
            raise DataError(f"options of decoding must be an object with {', '.join(sorted(known))}, got {value!r:.80}")
        given: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in value.items()}
        try:
            return cls(**given)
        except ConfigError as error:
            raise DataError(f"options of decoding are invalid: {error}") from None


def _is_given(decoding: Decoding, field: Any) -> bool:
    return bool(getattr(decoding, field.name) != field.default)
