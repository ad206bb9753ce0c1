"""What a search knows about a part before it sees a query: reciprocal norms, error bounds, and usable items.

The float32 score of an item differs from the exact score by at most `error_n`, for queries whose mapped vectors W c(q)
are at most `weight_norm` long; for longer ones the bound grows in proportion.

Shapes: `n` items, `m` rows of a modality, `M` modalities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.index._calibration import Calibration
from unialign.index._snapshot import Derived, Part
from unialign.ops import product_error, trusted_rows

# Items whose corrected rows have a sum with a smaller norm have no direction.
SMALLEST_SUM = 1e-3
# Reciprocal norm of rows that equal the mean of their modality, which have no direction (see `_derived.py`).
_NO_DIRECTION = 0.99e9
_UNIT = 2.0**-24
_MOST_KEPT = 16


@dataclass(frozen=True)
class TargetRows:
    """Rows of a target modality; nothing is copied.

    Attributes:
        rows_mD: unit rows without correction.
        inverse_m: reciprocal norms after the affine map; None if all are 1.
        local_mM: mean cosines with reference rows; None without CSLS.
        places_m: places of the rows; None if all items have one.
        blank_m: mask of rows without direction; None if there are none.
    """

    name: str
    rows_mD: Tensor
    inverse_m: Tensor | None
    local_mM: Tensor | None
    places_m: NDArray[np.int32] | None
    blank_m: Tensor | None


@dataclass(frozen=True)
class PreparedPart:
    """A part for one choice of target modalities.

    Attributes:
        scale_n: reciprocal norms of the sums of corrected rows; None if all are 1.
        error_n: error bounds of float32 scores.
        usable_n: mask of items with a direction in the targets; None if all have one.
        cancelled_n: mask of items whose rows cancel; None if there are none.
    """

    part: Part
    derived: Derived
    targets: tuple[TargetRows, ...]
    scale_n: Tensor | None
    error_n: Tensor
    usable_n: NDArray[np.bool_] | None
    cancelled_n: NDArray[np.bool_] | None


def weight_norm(calibration: Calibration, name: str) -> float:
    """A typical norm of W q for unit queries q: the root mean square of the singular values of W."""
    weight = calibration.weight.get(name)
    return 1.0 if weight is None else max(1e-6, float(torch.linalg.matrix_norm(weight)) / len(weight) ** 0.5)


def prepare_part(
    part: Part, derived: Derived, calibration: Calibration, targets: Sequence[str], *, best: bool
) -> PreparedPart:
    """Prepare a part for scores by the sum (`any`, lists, single modalities) or by the largest row score (`best`)."""
    key = (tuple(targets), best)
    found: PreparedPart | None = derived.kept.get(key)
    if found is None:
        found = _prepare(part, derived, calibration, targets, best=best)
        if len(derived.kept) >= _MOST_KEPT:
            derived.kept.pop(next(iter(derived.kept)), None)
        derived.kept[key] = found
    return found


def places_of(part: Part, name: str) -> NDArray[np.int32] | None:
    """Places of the rows of a modality; None if all items have one."""
    places = part.places.get(name)
    return None if places is None or len(places) == part.items else places


def _prepare(
    part: Part, derived: Derived, calibration: Calibration, targets: Sequence[str], *, best: bool
) -> PreparedPart:
    names = [name for name in targets if name in part.rows and len(part.rows[name])]
    largest = 4.0 if calibration.reference else 1.0
    rows: list[TargetRows] = []
    count_n, error_n = np.zeros(part.items, np.int16), np.zeros(part.items)
    for name in names:
        inverse_m = np.asarray(derived.inverse_norm[name])
        blank_m = inverse_m >= _NO_DIRECTION
        has_blank = bool(blank_m.any())
        places_m = places_of(part, name)
        # The product, the offset and the reciprocal norm.
        bias = calibration.bias.get(name)
        offset = 0.0 if bias is None else 4 * _UNIT * float(torch.linalg.vector_norm(bias))
        length = weight_norm(calibration, name)
        error_m = inverse_m.astype(np.float64) * (product_error(part.rows[name].shape[1]) * length + offset) + 8 * _UNIT
        if calibration.reference:
            error_m = 2 * error_m + (len(calibration.modalities) + 24) * _UNIT
        deviation = 0.0 if has_blank else float(np.abs(inverse_m - 1).max())
        plain = not has_blank and deviation < 1e-6
        error_m += 4 * deviation if plain else 0.0
        error_m[blank_m] = 0
        at = slice(None) if places_m is None else places_m
        count_n[at] += ~blank_m
        error_n[at] = np.maximum(error_n[at], error_m) if best else error_n[at] + error_m
        rows.append(
            TargetRows(
                name,
                trusted_rows(part.rows[name]),
                None if plain else trusted_rows(derived.inverse_norm[name]),
                trusted_rows(derived.local[name]) if calibration.reference else None,
                places_m,
                torch.from_numpy(blank_m) if has_blank else None,
            )
        )
    usable_n = count_n > 0
    if best or len(rows) <= 1:
        error_n += 4 * _UNIT * largest
        return PreparedPart(part, derived, tuple(rows), None, _bound(error_n), _unless_all(usable_n), None)
    square_n, pairs = item_squares(derived, calibration.modalities, names, count_n)
    norm_n = np.sqrt(np.maximum(square_n, SMALLEST_SUM**2))
    cancelled_n = usable_n & (square_n < SMALLEST_SUM**2)
    # Relative error of the reciprocal norm, from the rounded inner products; infinite where they decide the norm.
    deviation_n = 2.5 * pairs * _UNIT / norm_n**2
    relative_n = np.where(deviation_n < 0.5, deviation_n, np.inf)
    with np.errstate(invalid="ignore"):
        error_n = error_n / norm_n * (1 + relative_n)
        error_n += largest * count_n / norm_n * (relative_n + (len(rows) + 8) * _UNIT)
    error_n = np.where(usable_n, error_n, 0)
    return PreparedPart(
        part,
        derived,
        tuple(rows),
        torch.from_numpy((1 / norm_n).astype(np.float32)),
        _bound(error_n),
        _unless_all(usable_n & ~cancelled_n),
        cancelled_n if cancelled_n.any() else None,
    )


def item_squares(
    derived: Derived, modalities: Sequence[str], targets: Sequence[str], count_n: NDArray[np.int16]
) -> tuple[NDArray[np.float64], int]:
    """(n,) squared norms of the sums of corrected rows, and the number of inner products in each."""
    square_n, pairs = count_n.astype(np.float64), 0
    for column, (a, b) in enumerate(combinations(modalities, 2)):
        if a in targets and b in targets:
            square_n += 2 * np.asarray(derived.inner[:, column], np.float64)
            pairs += 1
    return square_n, pairs


def _bound(error_n: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy((1.01 * error_n).astype(np.float32))


def _unless_all(mask_n: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return None if mask_n.all() else mask_n
