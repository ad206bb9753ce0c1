"""Vectors as features."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["VectorFeatures"]


@dataclass(frozen=True)
class VectorFeatures:
    """Return a vector or, with `log`, sign(x) log(1 + |x|) of its entries x."""

    log: bool = False

    def __call__(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        features = np.asarray(vector, np.float32)
        return {"features": np.sign(features) * np.log1p(np.abs(features)) if self.log else features}

    def to_json(self) -> dict[str, Any]:
        return {"type": "vector", **asdict(self)}
