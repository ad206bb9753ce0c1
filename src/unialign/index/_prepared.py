"""Compute what a search needs from a part for any query: reciprocal norms, error bounds, and usable items.

The float32 score of an item differs from the exact score by at most `error_n`, for queries whose mapped vectors W c(q)
are at most `weight_norm` long; for longer ones the bound grows in proportion. The bound includes the errors of the
derived numbers, which were computed in float32: u |b| of z + b, D u |W|_F (Frobenius norm) of z W, and (D / 2 + 4) u
of a norm, relative to the norm of the mapped row. For the few items for which this is not precise enough, norms are
computed again in float64.

Shapes: `n` items, `m` rows of a modality, `M` modalities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
# Error bound above every score.
_ALWAYS = 1e7
_BLOCK = 4096
_UNIT = 2.0**-24
_MOST_KEPT = 16


@dataclass(frozen=True)
class TargetRows:
    """Rows of a target modality; nothing is copied.

    Attributes:
        rows_mD: unit rows without correction.
        inverse_m: reciprocal norms after the affine map; None if all are 1.
        local_mM: mean cosines with reference rows; None without CSLS.
        ratio_m: norm of the sum of the item's corrected rows over their number; None if all are 1. Terms of CSLS are
            multiplied by it, since the sum of row scores is divided by the norm.
        places_m: places of the rows; None if all items have one.
        blank_m: mask of rows without direction; None if there are none.
    """

    name: str
    rows_mD: Tensor
    inverse_m: Tensor | None
    local_mM: Tensor | None
    ratio_m: Tensor | None
    places_m: NDArray[np.int32] | None
    blank_m: Tensor | None

    def at(self, items: slice | NDArray[np.int64]) -> tuple[slice | Tensor, Tensor | None]:
        """Return the rows of the items in a range or at ascending places, and their positions there; None if all have
        one.
        """
        places = self.places_m
        if isinstance(items, slice):
            if places is None:
                return items, None
            first, last = np.searchsorted(places, [items.start, items.stop])
            return slice(int(first), int(last)), torch.from_numpy(places[first:last].astype(np.int64) - items.start)
        if places is None:
            return torch.from_numpy(items), None
        row = np.searchsorted(places, items)
        has = places[np.minimum(row, len(places) - 1)] == items
        return torch.from_numpy(row[has]), torch.from_numpy(np.flatnonzero(has))


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
    """Return a typical norm of W q for unit queries q: the root mean square of the singular values of W."""
    weight = calibration.weight.get(name)
    return 1.0 if weight is None else max(1e-6, float(torch.linalg.matrix_norm(weight)) / len(weight) ** 0.5)


def prepare_part(
    part: Part, derived: Derived, calibration: Calibration, targets: Sequence[str], *, best: bool
) -> PreparedPart:
    """Prepare a part for scores by the mean (`any`, lists, single modalities) or by the largest cosine (`best`)."""
    key = (tuple(targets), best)
    found: PreparedPart | None = derived.kept.get(key)
    if found is None:
        found = _prepare(part, derived, calibration, targets, best=best)
        if len(derived.kept) >= _MOST_KEPT:
            derived.kept.pop(next(iter(derived.kept)), None)
        derived.kept[key] = found
    return found


def places_of(part: Part, name: str) -> NDArray[np.int32] | None:
    """Return the places of the rows of a modality; None if all items have one."""
    places = part.places.get(name)
    return None if places is None or len(places) == part.items else places


def _prepare(
    part: Part, derived: Derived, calibration: Calibration, targets: Sequence[str], *, best: bool
) -> PreparedPart:
    names = [name for name in targets if name in part.rows and len(part.rows[name])]
    largest = 4.0 if calibration.reference else 1.0
    rows: list[TargetRows] = []
    count_n, error_n = np.zeros(part.items, np.int16), np.zeros(part.items)
    # Errors of unit rows, for the errors of inner products.
    relative: dict[str, NDArray[np.float64]] = {}
    for name in names:
        target, error_m, relative_m = _target_rows(part, derived, calibration, name)
        at = slice(None) if target.places_m is None else target.places_m
        count_n[at] += 1 if target.blank_m is None else ~target.blank_m.numpy()
        error_n[at] = np.maximum(error_n[at], error_m) if best else error_n[at] + error_m
        relative[name] = np.zeros(part.items)
        relative[name][at] = relative_m
        rows.append(target)
    usable_n = count_n > 0
    if best or len(rows) <= 1:
        error_n += 4 * _UNIT * largest
        return PreparedPart(part, derived, tuple(rows), None, _bound(error_n), _unless_all(usable_n), None)
    square_n = count_n.astype(np.float64)
    deviation_n = np.zeros(part.items)
    for column, (a, b) in enumerate(combinations(calibration.modalities, 2)):
        if a in relative and b in relative:
            square_n += 2 * np.asarray(derived.inner[:, column], np.float64)
            deviation_n += 2 * (2 * relative[a] + 2 * relative[b] + (part.rows[a].shape[1] + 4) * _UNIT)
    coarse_n = np.flatnonzero(usable_n & (square_n < 4 * deviation_n))
    square_n[coarse_n] = _exact_squares(part, calibration, rows, coarse_n)
    deviation_n[coarse_n] = 1e-12
    norm_n = np.sqrt(np.maximum(square_n, SMALLEST_SUM**2))
    cancelled_n = usable_n & (square_n < SMALLEST_SUM**2)
    relative_n = deviation_n / norm_n**2
    error_n = error_n / norm_n * (1 + relative_n)
    error_n += largest * count_n / norm_n * (relative_n + (len(rows) + 12) * _UNIT)
    error_n = np.where(usable_n, error_n, 0)
    if calibration.reference:
        ratio_n = torch.from_numpy((norm_n / np.maximum(count_n, 1)).astype(np.float32))
        rows = [replace(t, ratio_m=ratio_n if t.places_m is None else ratio_n[t.places_m.tolist()]) for t in rows]
    return PreparedPart(
        part,
        derived,
        tuple(rows),
        torch.from_numpy((1 / norm_n).astype(np.float32)),
        _bound(error_n),
        _unless_all(usable_n & ~cancelled_n),
        cancelled_n if cancelled_n.any() else None,
    )


def _target_rows(
    part: Part, derived: Derived, calibration: Calibration, name: str
) -> tuple[TargetRows, NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows of a modality, (m,) error bounds of their scores, and (m,) relative errors of their norms."""
    rows_mD = trusted_rows(part.rows[name])
    inverse_m = np.asarray(derived.inverse_norm[name])
    dim = rows_mD.shape[1]
    weight, bias = calibration.weight.get(name), calibration.bias.get(name)
    bias_norm = 0.0 if bias is None else float(torch.linalg.vector_norm(bias))
    mapped = 2 * _UNIT * bias_norm
    if weight is not None:
        mapped += (dim + 4) * _UNIT * float(torch.linalg.matrix_norm(weight))
    large_m = inverse_m.astype(np.float64)
    relative_m = 1.5 * large_m * mapped + (dim / 2 + 6) * _UNIT
    product = product_error(dim) * weight_norm(calibration, name) + 4 * _UNIT * bias_norm
    error_m = 1.5 * large_m * product + relative_m + 8 * _UNIT
    if calibration.reference:
        error_m = 2 * error_m + (len(calibration.modalities) + 24) * _UNIT
    # The norms of these rows are not known; they are always candidates, or have no direction.
    loose_m = np.flatnonzero(relative_m > 0.25)
    blank_m = np.zeros(len(inverse_m), np.bool_)
    blank_m[loose_m] = calibration.correct(name, rows_mD[torch.from_numpy(loose_m)]).isnan().any(1).numpy()
    error_m[loose_m] = _ALWAYS
    error_m[blank_m] = 0
    deviation = float(np.abs(inverse_m - 1).max())
    plain = deviation < 1e-6
    if plain:
        error_m += 4 * deviation
    target = TargetRows(
        name,
        rows_mD,
        None if plain else trusted_rows(derived.inverse_norm[name]),
        trusted_rows(derived.local[name]) if name in derived.local else None,
        None,
        places_of(part, name),
        torch.from_numpy(blank_m) if blank_m.any() else None,
    )
    return target, error_m, relative_m


def _exact_squares(
    part: Part, calibration: Calibration, rows: Sequence[TargetRows], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the squared norms of the sums of the corrected rows of items."""
    found = np.zeros(len(places))
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        sum_bD = torch.zeros(len(block), rows[0].rows_mD.shape[1], dtype=torch.float64)
        for target in rows:
            chosen, positions = target.at(block)
            at = slice(None) if positions is None else positions
            sum_bD[at] += calibration.correct(target.name, target.rows_mD[chosen]).nan_to_num(nan=0.0)
        found[start : start + _BLOCK] = sum_bD.square().sum(1).numpy()
    return found


def _bound(error_n: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy((1.01 * error_n).astype(np.float32))


def _unless_all(mask_n: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return None if mask_n.all() else mask_n
