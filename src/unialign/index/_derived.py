"""Compute the numbers of a part that depend on the calibration.

Products are in float32, and the numbers are stored in float32.

Shapes: `m` rows of a modality, `b` rows or items of a block, `n` items, `R` reference rows, `D` dimension, `M`
modalities, `P` pairs of modalities.
"""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from unialign.correction import local_similarity
from unialign.index._calibration import Calibration
from unialign.index._snapshot import Derived, Floats, Part

_BLOCK, _STEPS = 4096, 2.0**20


def derive(part: Part, calibration: Calibration) -> Derived:
    """Compute reciprocal norms, mean cosines with reference rows, and inner products within items."""
    names = calibration.modalities
    pairs = list(combinations(names, 2))
    inverse_norm: dict[str, Floats] = {name: np.ones(len(rows_mD), np.float32) for name, rows_mD in part.rows.items()}
    local: dict[str, Floats] = {}
    if calibration.reference:
        local = {name: np.zeros((len(rows_mD), len(names)), np.float32) for name, rows_mD in part.rows.items()}
    inner_nP = np.zeros((part.items, len(pairs)), np.float32)
    # Other modalities have too few rows for a correction.
    maps = {name: _Float32(calibration, name) for name in part.rows}
    reference = {name: rows_RD.float() for name, rows_RD in calibration.reference.items()}
    for start in range(0, part.items, _BLOCK):
        stop = min(start + _BLOCK, part.items)
        unit: dict[str, Tensor] = {}
        for name, rows_mD in part.rows.items():
            places_m = part.places.get(name)
            rows = slice(start, stop) if places_m is None else slice(*np.searchsorted(places_m, (start, stop)))
            mapped_bD = maps[name](torch.from_numpy(np.array(rows_mD[rows])))
            inverse_b = torch.linalg.vector_norm(mapped_bD, dim=1).clamp(min=1e-9).reciprocal()
            inverse_norm[name][rows] = inverse_b.numpy()
            unit_bD = mapped_bD.mul_(inverse_b[:, None])
            for column, other in enumerate(names):
                if other in reference:
                    near_b = local_similarity(unit_bD, reference[other], same_modality=name == other)
                    # Rounded so that equal rows have equal numbers in every part, whatever the block of the product.
                    local[name][rows, column] = (near_b * _STEPS).round_().div_(_STEPS).numpy()
            if places_m is None:
                unit[name] = unit_bD
            else:
                unit[name] = torch.zeros(stop - start, unit_bD.shape[1])
                unit[name][torch.from_numpy(np.asarray(places_m[rows], np.int64) - start)] = unit_bD
        for column, (a, b) in enumerate(pairs):
            if a in unit and b in unit:
                inner_nP[start:stop, column] = (unit[a] * unit[b]).sum(1).numpy()
    return Derived(inverse_norm, local, inner_nP)


class _Float32:
    """The affine map of a modality in float32."""

    def __init__(self, calibration: Calibration, name: str) -> None:
        weight_DD, bias_D = calibration.weight.get(name), calibration.bias.get(name)
        self.weight_DD = None if weight_DD is None else weight_DD.float()
        self.bias_D = None if bias_D is None else bias_D.float()

    def __call__(self, z_bD: Tensor) -> Tensor:
        out_bD = z_bD.float() if self.weight_DD is None else z_bD.float() @ self.weight_DD
        return out_bD if self.bias_D is None else out_bD + self.bias_D


def row_places(part: Part, name: str) -> np.ndarray:
    """Return the (m,) places of the rows of a modality among the items."""
    places = part.places.get(name)
    return np.arange(part.items) if places is None else places
