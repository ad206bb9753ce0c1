"""Media as arrays, for libraries that prepare their inputs themselves."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.media import Audio

__all__ = ["RawMedia"]


@dataclass(frozen=True)
class RawMedia:
    """Map a text to its UTF-8 bytes, an image to its pixels (H, W, 3), and a sound to its samples: `value`, `rate`."""

    prefix: str = ""

    def __call__(self, media: Any) -> dict[str, NDArray[Any]]:
        if isinstance(media, str):
            return {"value": np.frombuffer((self.prefix + media).encode(), np.uint8), "rate": np.array(0)}
        if isinstance(media, Audio):
            return {"value": media.samples, "rate": np.array(media.rate)}
        return {"value": np.asarray(media), "rate": np.array(0)}

    def to_json(self) -> dict[str, Any]:
        return {"type": "raw", **asdict(self)}
