"""Arrays of an index at one generation, in memory or mapped from files.

Stored rows are unit embeddings without correction. Numbers that depend on the calibration are derived (see
`_derived.py`), so that a new calibration does not rewrite rows.

Shapes: `n` items of a part, `m` rows of a modality in a part, `D` dimension, `M` modalities of the index, `P` pairs of
modalities, M (M - 1) / 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """An immutable set of items.

    Attributes:
        id: number in the catalog.
        items: number of items n, deleted items included.
        rows: modality -> (m, D) unit rows of the items that have it, in the order of their places.
        places: modality -> (m,) int32 ascending places of the rows among the items; None if all items have a row.
    """

    id: int
    items: int
    rows: Mapping[str, Floats]
    places: Mapping[str, NDArray[np.int32] | None]


@dataclass(frozen=True)
class Derived:
    """Numbers of a part that depend on the calibration.

    Attributes:
        inverse_norm: modality -> (m,) reciprocal norms of the rows after the affine map of the correction.
        local: modality -> (m, M) mean cosine with the nearest reference rows of each modality (see
            `correction/_csls.py`); empty unless the correction uses CSLS.
        inner: (n, P) inner products of the corrected rows of an item, 0 for absent rows. They determine the norm of the
            sum over any subset of modalities.
        kept: values that searches compute once and reuse (see `_prepared.py`).
    """

    inverse_norm: Mapping[str, Floats]
    local: Mapping[str, Floats]
    inner: Floats
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Snapshot:
    """The living items of an index at a generation.

    Attributes:
        modalities: names of the modalities; P pairs are ordered as by `itertools.combinations`.
        alive: id of a part -> (n,) bool; parts without deleted items are not listed.
    """

    generation: int
    modalities: tuple[str, ...]
    dim: int
    parts: tuple[Part, ...]
    alive: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Number of stored rows of each modality."""
        return {name: sum(len(part.rows[name]) for part in self.parts if name in part.rows) for name in self.modalities}
