"""Encode prepared batches into a part.

Shapes: `n` cells of a batch, `W` dimension of the features.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.embedding._batch import PreparedBatch
from unialign.embedding._clock import Clock
from unialign.embedding._part_file import BrokenCell, Part
from unialign.embedding._plan import Plan
from unialign.embedding._thumbnail import has_thumbnail
from unialign.encoders import Encoder, encode_prepared
from unialign.errors import NonFiniteError, ShapeError

__all__ = ["compute_part"]

Prepared = dict[str, NDArray[Any]]


def compute_part(
    plan: Plan,
    column: str,
    encoder: Encoder,
    batches: Iterable[PreparedBatch],
    clock: Clock,
    on_cells: Callable[[str, int], None],
) -> Part:
    found = _Collector(plan, column)
    whole: list[tuple[PreparedBatch, list[Prepared | None]]] = []
    for batch in batches:
        if encoder.media == "text":
            # Texts are sorted by length over the whole part, so that batches have little padding.
            whole.append((batch, [_copied(outcome.arrays) for outcome in batch.outcomes]))
            continue
        with clock("encode"):
            features_nW = _encoded(plan, encoder, [outcome.arrays for outcome in batch.outcomes])
        found.add(batch, features_nW)
        on_cells(column, len(batch.outcomes))
    if whole:
        with clock("encode"):
            features_nW = _encoded(plan, encoder, [arrays for _, prepared in whole for arrays in prepared])
        start = 0
        for batch, prepared in whole:
            found.add(batch, features_nW[start : start + len(prepared)])
            start += len(prepared)
        on_cells(column, start)
    return found.part()


def _encoded(plan: Plan, encoder: Encoder, prepared: list[Prepared | None]) -> NDArray[Any]:
    features = encode_prepared(encoder, prepared, batch_size=plan.settings.batch_size)
    if features.shape != (len(prepared), encoder.dim):
        raise ShapeError(f"{encoder!r} returned features of shape {tuple(features.shape)}, expected (n, {encoder.dim})")
    return features.numpy()


class _Collector:
    def __init__(self, plan: Plan, column: str) -> None:
        self._plan, self._column = plan, column
        self._cells: list[int] = []
        self._features: list[NDArray[Any]] = []
        self._images: list[bytes] | None = None
        if plan.settings.thumbnails is not None and has_thumbnail(plan.columns[column].media):
            self._images = []
        self._broken: list[BrokenCell] = []
        self._marks: dict[str, tuple[int, int]] = {}
        self._hashes: dict[int, str] = {}

    def add(self, batch: PreparedBatch, features_nW: NDArray[Any]) -> None:
        stored_nW = _stored(features_nW, self._plan.settings.dtype)
        finite_n: NDArray[Any] = np.asarray(np.isfinite(stored_nW).all(axis=1))
        zero_n: NDArray[Any] = np.asarray(~stored_nW.any(axis=1))
        for place, (number, outcome) in enumerate(zip(batch.task.numbers, batch.outcomes, strict=True)):
            self._marks |= outcome.marks
            if outcome.sha256 is not None:
                self._hashes[number] = outcome.sha256
            if outcome.code is not None:
                self._broken.append(BrokenCell(number, outcome.code, outcome.detail))
            elif outcome.is_blank:
                continue
            elif not finite_n[place]:
                raise self._not_finite(batch, place, features_nW[place])
            elif zero_n[place]:
                self._broken.append(BrokenCell(number, "zero-features", "all features are zero"))
            else:
                self._cells.append(number)
                self._features.append(stored_nW[place])
                if self._images is not None:
                    self._images.append(outcome.thumbnail or b"")

    def part(self) -> Part:
        dim = self._plan.columns[self._column].dim
        features = np.stack(self._features) if self._features else np.empty((0, dim), self._plan.settings.dtype)
        return Part(np.array(self._cells, np.int64), features, self._images, self._broken, self._marks, self._hashes)

    def _not_finite(self, batch: PreparedBatch, place: int, features_W: NDArray[Any]) -> NonFiniteError:
        plan = self._plan.columns[self._column]
        reference = plan.reference
        name = f"{reference.get('kind')}:{reference.get('name')}"
        if np.isfinite(features_W).all():
            advice = f"the largest value {np.abs(features_W).max():g} does not fit into float16; use dtype='float32'"
        else:
            advice = "the cell was decoded, so check the encoder and its dtype"
        return NonFiniteError(
            f"the encoder {name} of {self._column!r} computed NaN or infinite features for {batch.task.where(place)}; "
            f"{advice}"
        )


def _stored(features_nW: NDArray[Any], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.asarray(features_nW.astype(dtype))


def _copied(arrays: Prepared | None) -> Prepared | None:
    return None if arrays is None else {name: array.copy() for name, array in arrays.items()}
