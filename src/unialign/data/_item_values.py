"""Validate and convert the (N,) ids, groups, labels and splits of items."""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unialign._checks import has_surrogate
from unialign.data._layout import ITEM_DTYPES, SPLITS
from unialign.errors import DataError, ShapeError

__all__ = ["check_values", "default_values", "label_codes", "split_codes", "text_keys", "to_numpy", "validate_values"]

Array = NDArray[Any]


def validate_values(given: Mapping[str, ArrayLike | None], items: int, label_names: Sequence[str]) -> dict[str, Array]:
    rows = {
        kind: _integers(split_codes(value) if kind == "split" else value, kind, items)
        for kind, value in given.items()
        if value is not None
    }
    for kind, values_N in rows.items():
        check_values(kind, values_N, label_names, kind)
    if "groups" in rows and "split" in rows and (leak := _crossing("group", rows["groups"], rows["split"])):
        raise DataError(leak)
    if "ids" in rows and "split" in rows and (leak := _crossing("id", rows["ids"], rows["split"])):
        # Only warn, because ids that cross splits inflate results if the ids denote captions, but are harmless if the
        # ids denote classes.
        warnings.warn(leak, UserWarning, stacklevel=4)
    return rows


def text_keys(ids: ArrayLike | None, items: int) -> tuple[str, ...] | None:
    """Return None if there are no text ids."""
    values_N = None if ids is None else to_numpy(ids, "ids")
    if values_N is None or values_N.dtype.kind not in "UTSO" or values_N.shape != (items,):
        return None
    if values_N.dtype.kind == "O" and not all(isinstance(key, str | bytes) for key in values_N[:1]):
        return None
    keys = [key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key in values_N.tolist()]
    for row, key in enumerate(keys):
        if not isinstance(key, str) or has_surrogate(key):
            raise DataError(f"ids: row {row} holds {key!r}; expected integers or strings for all items")
    return tuple(keys)


def check_values(kind: str, values_N: Array, label_names: Sequence[str], where: object) -> None:
    if kind == "split":
        low, high, meaning = 0, len(SPLITS) - 1, "0 = train, 1 = val, 2 = test"
    elif kind == "labels":
        low, high = -1, len(label_names) - 1 if label_names else np.iinfo(np.int64).max
        meaning = "-1 = unlabeled, else an index into label_names"
    else:
        return
    bad_N = (values_N < low) | (values_N > high)
    if bad_N.any():
        row = int(bad_N.argmax())
        raise DataError(f"{where}: row {row} holds {values_N[row]}, expected {low} to {high} ({meaning})")


def default_values(kind: str, items: int) -> Array:
    """Return unique ids or groups, label -1, split code 0 (train), or presence True."""
    fill = {"labels": -1, "split": 0, "present": True}
    if kind in fill:
        # Broadcast one value, so that no memory is allocated for N values.
        return np.broadcast_to(np.array(fill[kind], ITEM_DTYPES[kind]), (items,))
    values_N = np.arange(items, dtype=np.int64)
    values_N.flags.writeable = False
    return values_N


def to_numpy(value: ArrayLike, what: str) -> Array:
    # Detect tensors by their methods, to avoid importing torch here.
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu()
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{what} cannot be converted to an array ({error}); pass a NumPy array or a float32 tensor"
        ) from None


def split_codes(split: ArrayLike, aliases: Mapping[str, str] = MappingProxyType({})) -> Array:
    values_N = to_numpy(split, "split")
    if values_N.dtype.kind not in "UTO":
        return values_N
    codes_N = np.full(values_N.shape, -1, dtype=np.int8)
    for name, meaning in ({name: name for name in SPLITS} | dict(aliases)).items():
        codes_N[values_N == name] = SPLITS.index(meaning)
    unknown_N = codes_N < 0
    if unknown_N.any():
        found, known = values_N[unknown_N].tolist()[0], ", ".join(map(repr, [*SPLITS, *aliases]))
        raise DataError(f"split: row {int(unknown_N.argmax())} holds {found!r}, expected one of {known}")
    return codes_N


def label_codes(values_N: Array | None) -> tuple[Array | None, list[str] | None]:
    """Return (N,) codes with -1 = unlabeled, and the class names if the labels are strings."""
    if values_N is None:
        return None, None
    if values_N.dtype.kind in "iu":
        return np.where(values_N < 0, -1, values_N), None
    texts_N = values_N.astype(str)
    names = np.unique(texts_N[texts_N != ""])
    return np.where(texts_N == "", -1, np.searchsorted(names, texts_N)), names.tolist()


def _integers(value: ArrayLike, kind: str, items: int) -> Array:
    values_N = to_numpy(value, kind)
    if values_N.dtype.kind not in "iu" or values_N.shape != (items,):
        kinds = "integers or text" if kind == "ids" else "integers"
        raise ShapeError(
            f"{kind} has dtype {values_N.dtype} and shape {values_N.shape}, expected {kinds} and ({items},)"
        )
    target = ITEM_DTYPES[kind]
    narrow_N = values_N.astype(target)
    if not np.array_equal(narrow_N, values_N):
        row = int((narrow_N != values_N).argmax())
        raise DataError(f"{kind}: row {row} holds {values_N[row]}, which does not fit into {np.dtype(target).name}")
    return narrow_N


def _crossing(name: str, code_N: Array, split_N: Array) -> str | None:
    """Return a message about the first group or id that crosses splits, or None."""
    order_N = np.lexsort((split_N, code_N))
    sorted_code_N, sorted_split_N = code_N[order_N], split_N[order_N]
    crossing = (sorted_code_N[1:] == sorted_code_N[:-1]) & (sorted_split_N[1:] != sorted_split_N[:-1])
    if not crossing.any():
        return None
    place = int(crossing.argmax())
    first, second = order_N[place], order_N[place + 1]
    return (
        f"{name} {code_N[first]} crosses splits: row {first} is in {SPLITS[split_N[first]]!r}, row {second} in "
        f"{SPLITS[split_N[second]]!r}; all items of one {name} must be in the same split, or test results are inflated "
        f"(use random_split(..., groups=...))"
    )
