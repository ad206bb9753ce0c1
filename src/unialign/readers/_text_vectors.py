"""Read vectors that a table stores as text."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ShapeError

__all__ = ["TextVectors", "is_absent", "parse_rows", "recognize_vectors"]

_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_BLANK = frozenset({"", "[]", "null", "none", "nan"})
_SEPARATORS = re.compile(r"[\s,;]+")
# Minimum length of a vector without brackets.
_MIN_UNBRACKETED = 4
_SHOWN = 40


@dataclass(frozen=True)
class TextVectors:
    """Dim of the vectors in a text column, or the reason why the vectors cannot be read."""

    dim: int
    problem: str = ""


def recognize_vectors(texts: Sequence[str | None]) -> TextVectors | None:
    given = [text.strip() for text in texts if text is not None and not is_absent(text)]
    if not given:
        return None
    found = [_numbers(text) for text in given]
    bracketed = _is_bracketed(given[0])
    dims = [0 if values is None else len(values) for values in found]
    if min(dims) > 0 and max(dims) >= (2 if bracketed else _MIN_UNBRACKETED):
        return TextVectors(dims[0])
    if not bracketed or not re.match(r"[-+.\d]", given[0][1:].strip()) or max(dims) == 1:
        return None
    if any("..." in text for text in given):
        return TextVectors(
            0, "printed arrays, in which '...' replaces most numbers; write them again with json.dumps(x.tolist())"
        )
    return TextVectors(0, f"text such as {given[dims.index(0)][:_SHOWN]!r}, which is not a list of numbers")


def parse_rows(texts: Sequence[str | None], dim: int, where: str, start: int) -> NDArray[np.float32]:
    """Parse strings into (c, dim); blank strings become NaN. Errors name the row, counted from `start`."""
    rows_cD = np.full((len(texts), dim), np.nan, np.float32)
    for i, text in enumerate(texts):
        if text is None or is_absent(text):
            continue
        values = _numbers(text)
        if values is None:
            raise ShapeError(
                f"{where} row {start + i} is {text[:_SHOWN]!r}, expected a list of numbers; correct it, or leave "
                "the cell empty if the item has no vector"
            )
        if len(values) != dim:
            raise ShapeError(
                f"{where} row {start + i} has {len(values)} entries, but the first row has {dim}; every row needs the "
                "same dim (one pooled vector per item)"
            )
        rows_cD[i] = values
    return rows_cD


def is_absent(text: str | None) -> bool:
    return text is None or text.strip().lower() in _BLANK


def _is_bracketed(text: str) -> bool:
    return len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]


def _numbers(text: str) -> list[Any] | None:
    text = text.strip()
    try:
        values = json.loads(text) if text[:1] == "[" else None
    except ValueError:  # a printed array has no commas
        values = None
    if isinstance(values, list):
        return values if all(type(value) in (int, float) for value in values) else None
    parts = [part for part in _SEPARATORS.split(text[1:-1] if _is_bracketed(text) else text) if part]
    try:
        return [float(part) for part in parts] or None
    except ValueError:
        return None
