"""Propose ids for items with equal or nearly equal rows in a modality, which are copies or share a caption.

Shapes: `N` items, `D` dimension.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.diagnostics._modality import ModalityStats
from unialign.diagnostics._near_rows import connect_near, connected, equal_codes
from unialign.readers import Collection

# Limits of the search for nearly equal rows among all items; beyond these limits, only equal rows share an id.
_MAX_ITEMS, _MAX_BYTES = 8192, 2**30


def propose_ids(data: Collection, modalities: Mapping[str, ModalityStats]) -> NDArray[np.int64] | None:
    """Return (N,) ids: items connected by equal or nearly equal rows get the row number of the first of them. None if
    no rows of different items are nearly equal.
    """
    codes = [] if data.ids_N is None else [data.ids_N]
    given = len(codes)
    for name, m in modalities.items():
        if m.duplicates.repeats and m.duplicates.distinct > 1:
            codes.append(equal_codes(m.scan.checksums_N, m.scan.usable_N))
        if m.near.repeats and has_room_for_all(data.items, m.dim):
            codes.append(_near_codes(data.modalities[name].rows, m))
    if len(codes) == given:
        return None
    ids_N = connected(*codes)
    return ids_N if len(np.unique(ids_N)) > 1 else None


def has_room_for_all(items: int, dim: int) -> bool:
    """Search for nearly equal rows among all items, not only in the sample."""
    return items <= _MAX_ITEMS and 8 * items * dim <= _MAX_BYTES


def _near_codes(rows: Any, m: ModalityStats) -> NDArray[np.int64]:
    at_u = np.flatnonzero(m.scan.usable_N)
    z_uD = torch.from_numpy(rows.take(at_u.tolist()).astype(np.float64))
    z_uD /= z_uD.abs().amax(1, keepdim=True)
    z_uD /= torch.linalg.vector_norm(z_uD, dim=1, keepdim=True)
    code_N = np.arange(len(m.scan.usable_N))
    code_N[at_u] = at_u[connect_near(z_uD, m.near.radius)]
    return code_N
