"""Sampling of the batches of a run from the sources of a mixture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.config import MixtureMode
from unialign.io import canonical_json, digest

__all__ = ["Sampling", "mixture_fingerprint"]


@dataclass(frozen=True)
class Sampling:
    """Sources of the rows of a table, one source after another, and their sampling weights in training.

    Attributes:
        items: source -> number of items.
        fingerprints: source -> fingerprint of the table.
        paths: source -> folder of the store; None for stores in memory and for item tables.
        weights: source -> positive number.
    """

    items: Mapping[str, int]
    fingerprints: Mapping[str, str]
    paths: Mapping[str, str | None]
    weights: Mapping[str, float]
    mode: MixtureMode
    epoch_steps: int | None
    shared_ids: bool

    def sizes(self, rows_n: NDArray[np.int64]) -> dict[str, int]:
        """Return the number of the given rows, in ascending order, that belong to each source."""
        stops = np.cumsum(list(self.items.values()))
        counts = np.diff(np.searchsorted(rows_n, stops), prepend=0)
        return dict(zip(self.items, counts.tolist(), strict=True))

    def rows(self, source: str) -> range:
        """Return the rows of a source."""
        names = list(self.items)
        start = sum(self.items[name] for name in names[: names.index(source)])
        return range(start, start + self.items[source])

    def to_dict(self) -> dict[str, Any]:
        """Return the sampling as a JSON object for the metadata of a run, without the paths."""
        sources = {
            name: {"fingerprint": self.fingerprints[name], "items": items, "weight": self.weights[name]}
            for name, items in self.items.items()
        }
        return {
            "sources": sources,
            "mode": self.mode,
            "epoch_steps": self.epoch_steps,
            "shared_ids": self.shared_ids,
        }


def mixture_fingerprint(fingerprints: Mapping[str, str], *, shared_ids: bool) -> str:
    # Use a list, since the order of the sources affects the order of the rows.
    return digest(canonical_json({"mixture": list(map(list, fingerprints.items())), "shared_ids": shared_ids}))
