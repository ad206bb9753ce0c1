"""Read vectors that a table stores as text: JSON lists, printed arrays, or numbers with separators."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ShapeError

__all__ = ["TextVectors", "is_absent", "parse_rows", "recognize_vectors"]

_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_SEPARATORS = re.compile(r"[\s,;]+")
# Numbers without brackets are a vector only if there are this many.
_MIN_UNBRACKETED = 4
_SHOWN = 40


class TextVectors:
    """Text columns that hold vectors: their dim, or the reason why they cannot be read."""

    def __init__(self, dim: int, problem: str = "") -> None:
        self.dim, self.problem = dim, problem


def recognize_vectors(texts: Sequence[str | None]) -> TextVectors | None:
    """Return the dim of vectors in the first texts of a column; None if they are other text.

    A text that begins like a vector, but cannot be read as one, gives the reason instead.
    """
    given = [text.strip() for text in texts if text is not None and not is_absent(text)]
    if not given:
        return None
    first = given[0]
    bracketed = _BRACKETS.get(first[:1]) == first[-1:] and len(first) > 1
    dims = [_dim(text) for text in given]
    if all(dim is not None for dim in dims) and (dims[0] or 0) >= (2 if bracketed else _MIN_UNBRACKETED):
        return TextVectors(int(dims[0] or 0))
    inner = first[1:-1].strip()
    if not bracketed or not re.match(r"[-+.\d]", inner) or dims[0] == 1:
        return None
    if any("..." in text for text in given):
        return TextVectors(0, "printed arrays, in which '...' replaces most values; write lists or one column a value")
    return TextVectors(0, f"text such as {first[:_SHOWN]!r}, which is not a list of numbers")


def parse_rows(texts: Sequence[str | None], dim: int, where: str, start: int) -> NDArray[np.float32]:
    """Parse texts into (c, dim) float32; blank texts are NaN rows. Errors name the row, counted from `start`."""
    rows_cD = np.full((len(texts), dim), np.nan, np.float32)
    for i, text in enumerate(texts):
        if text is None or is_absent(text):
            continue
        values = _numbers(text)
        if values is None:
            raise ShapeError(f"{where} row {start + i} is {text[:_SHOWN]!r}, which is not a list of numbers")
        if len(values) != dim:
            raise ShapeError(
                f"{where} row {start + i} has {len(values)} entries, the first row has {dim}; every row needs the same "
                "dim (one pooled vector an item)"
            )
        rows_cD[i] = values
    return rows_cD


def is_absent(text: str | None) -> bool:
    """Return whether a cell of a column of vectors has no vector."""
    # A vector is long, and stripping it would copy it.
    return text is None or (len(text) < _SHOWN and text.strip().lower() in ("", "[]", "null", "none", "nan"))


def _dim(text: str) -> int | None:
    values = _numbers(text)
    return None if values is None else len(values)


def _numbers(text: str) -> list[float] | NDArray[Any] | None:
    """Return the numbers of a text; None if it is anything else."""
    text = text.strip()
    try:
        if text[:1] == "[":
            values = json.loads(text)
            plain = isinstance(values, list) and all(
                isinstance(value, int | float) and not isinstance(value, bool) for value in values
            )
            return values if plain else None
    except (ValueError, RecursionError):
        pass
    inner = text[1:-1] if _BRACKETS.get(text[:1]) == text[-1:] else text
    parts = [part for part in _SEPARATORS.split(inner) if part]
    try:
        return [float(part) for part in parts] if parts else None
    except ValueError:
        return None
