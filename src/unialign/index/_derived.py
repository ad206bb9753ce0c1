"""Compute the numbers of a part that depend on the calibration.

Shapes: `m` rows of a modality, `b` rows of a block, `n` items, `D` dimension, `M` modalities, `P` pairs of modalities.
"""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from unialign.index._calibration import Calibration
from unialign.index._snapshot import Derived, Floats, Part

_BLOCK = 4096


def derive(part: Part, calibration: Calibration) -> Derived:
    """Compute reciprocal norms, mean cosines with reference rows, and inner products within items, in float64."""
    inverse_norm: dict[str, Floats] = {}
    local: dict[str, Floats] = {}
    for name, rows_mD in part.rows.items():
        inverse_norm[name] = np.empty(len(rows_mD), np.float32)
        if calibration.reference:
            local[name] = np.zeros((len(rows_mD), len(calibration.modalities)), np.float32)
        for start in range(0, len(rows_mD), _BLOCK):
            block = slice(start, start + _BLOCK)
            mapped_bD = calibration.affine(name, torch.from_numpy(np.array(rows_mD[block])))
            norm_b = torch.linalg.vector_norm(mapped_bD, dim=1)
            inverse_norm[name][block] = norm_b.clamp(min=1e-9).reciprocal().numpy()
            for column, reference in enumerate(calibration.modalities):
                if reference in calibration.reference:
                    unit_bD = mapped_bD / norm_b.clamp(min=1e-9)[:, None]
                    local[name][block, column] = calibration.local(name, unit_bD, reference).numpy()
    return Derived(inverse_norm, local, _inner_products(part, calibration))


def _inner_products(part: Part, calibration: Calibration) -> Floats:
    pairs = list(combinations(calibration.modalities, 2))
    inner_nP = np.zeros((part.items, len(pairs)), np.float32)
    for column, (a, b) in enumerate(pairs):
        if a not in part.rows or b not in part.rows:
            continue
        places_a, places_b = row_places(part, a), row_places(part, b)
        both = np.intersect1d(places_a, places_b, assume_unique=True)
        for start in range(0, len(both), _BLOCK):
            chosen_b = both[start : start + _BLOCK]
            x_bD = _corrected(part, calibration, a, np.searchsorted(places_a, chosen_b))
            y_bD = _corrected(part, calibration, b, np.searchsorted(places_b, chosen_b))
            inner_nP[chosen_b, column] = (x_bD * y_bD).sum(1).nan_to_num().numpy()
    return inner_nP


def row_places(part: Part, name: str) -> np.ndarray:
    """(m,) places of the rows of a modality among the items."""
    places = part.places.get(name)
    return np.arange(part.items) if places is None else places


def _corrected(part: Part, calibration: Calibration, name: str, rows: np.ndarray) -> Tensor:
    return calibration.correct(name, torch.from_numpy(part.rows[name][rows]))
