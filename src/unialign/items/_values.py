"""Convert per-item values between texts, as stored, and codes.

Shapes: `N` items.
"""

from typing import Any

import numpy as np
from numpy.dtypes import StringDType
from numpy.typing import ArrayLike, NDArray

from unialign.errors import ConfigError, DataError, ShapeError
from unialign.items._columns import SPLITS

__all__ = ["codes_by_appearance", "label_codes", "rows_chosen", "split_given", "texts_given"]

Array = NDArray[Any]


def codes_by_appearance(texts_N: Array | None, items: int) -> NDArray[np.int64]:
    """Return codes of texts; an item without text has a separate code."""
    if texts_N is None:
        return np.arange(items, dtype=np.int64)
    codes: dict[str, int] = {}
    code_N = np.empty(items, np.int64)
    unique = 0
    for row, text in enumerate(texts_N.tolist()):
        code = codes.get(text)
        if code is None:
            code, unique = unique, unique + 1
            if text:
                codes[text] = code
        code_N[row] = code
    return code_N


def label_codes(texts_N: Array | None, items: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return (N,) codes, -1 for items without a label, and the sorted class names."""
    if texts_N is None:
        return np.full(items, -1, np.int64), ()
    texts = texts_N.tolist()
    names = sorted(set(texts) - {""})
    codes = {"": -1, **{name: code for code, name in enumerate(names)}}
    return np.array([codes[text] for text in texts], np.int64), tuple(names)


def texts_given(values: object, what: str, items: int) -> Array:
    values_N = np.asarray(values)
    if values_N.shape != (items,):
        raise ShapeError(f"{what} has shape {values_N.shape}, expected ({items},)")
    if values_N.dtype.kind not in "iuUTO":
        raise ShapeError(f"{what} has dtype {values_N.dtype}, expected strings or integers")
    found = ["" if value is None else str(value) for value in values_N.tolist()]
    try:
        return np.array(found, dtype=StringDType())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} contains a string with an unpaired surrogate ({error}); write it again as UTF-8"
        ) from None


def split_given(split: object, items: int) -> Array:
    """Convert names or codes of splits; None and -1 mark items without a split."""
    values_N = np.asarray(split)
    if values_N.shape != (items,):
        raise ShapeError(f"split has shape {values_N.shape}, expected ({items},)")
    if values_N.dtype.kind in "iu":
        bad_N = (values_N < -1) | (values_N >= len(SPLITS))
    else:
        codes: dict[object, int] = {None: -1, "": -1, **{name: code for code, name in enumerate(SPLITS)}}
        names = values_N.tolist()
        values_N = np.array([codes.get(name, -2) for name in names], np.int64)
        bad_N = values_N == -2
        if bad_N.any():
            row = int(bad_N.argmax())
            known = ", ".join(map(repr, SPLITS))
            raise DataError(f"split: row {row} holds {names[row]!r}, expected one of {known} or None")
    if bad_N.any():
        row = int(bad_N.argmax())
        raise DataError(f"split: row {row} holds {values_N[row]}, expected 0 = train, 1 = val, 2 = test or -1 = none")
    return values_N.astype(np.int8)


def rows_chosen(rows: ArrayLike, items: int) -> NDArray[np.int64]:
    rows_n = np.asarray(rows)
    if rows_n.dtype.kind == "b":
        if rows_n.shape != (items,):
            raise ShapeError(f"the mask has shape {rows_n.shape}, expected ({items},)")
        return np.flatnonzero(rows_n)
    if rows_n.ndim != 1 or (rows_n.dtype.kind not in "iu" and rows_n.size):
        raise ShapeError(
            f"rows has dtype {rows_n.dtype} and shape {rows_n.shape}, expected an ({items},) bool mask or row numbers"
        )
    rows_n = rows_n.astype(np.int64)
    if rows_n.size and not 0 <= rows_n.min() <= rows_n.max() < items:
        raise ConfigError(f"rows contains {rows_n.min()} to {rows_n.max()}, expected numbers from 0 to {items - 1}")
    if len(np.unique(rows_n)) < len(rows_n):
        raise ConfigError("rows contains a number twice; ids must be unique, so each item can be selected only once")
    return rows_n
