"""Join files by their ids: the items of the first file come first, then the additional items of later files.

Shapes: `N` items, `F` rows of a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._ids import FoundIds
from unialign.readers._keys import CollectedFile
from unialign.readers._naming import Matrices
from unialign.readers._rows import Array

__all__ = ["Join", "join_files"]

_SHOWN = 3
# Guessed ids are not used if files of equal length have at most this fraction of their ids in common.
_CHANCE_MATCHES = 0.1


@dataclass(frozen=True)
class Join:
    """Joined items; `matched` are the files whose rows are matched by ids."""

    items: int
    ids_N: Array | None
    matched: tuple[str, ...]
    notes: tuple[str, ...]
    is_guessed: bool = False


def join_files(sources: Sequence[CollectedFile], matrices: Matrices, found: dict[CollectedFile, FoundIds]) -> Join:
    rows = _row_counts(matrices)
    notes = _attach_ids(sources, rows, found)
    keyed = [source for source in rows if source in found]
    for source in keyed:
        if _row_count(found[source]) != rows[source]:
            ids = found[source]
            raise ShapeError(
                f"{ids.source.place(replace(ids.entry, key=ids.key))} is {ids.entry.dtype} of shape {ids.entry.shape}; "
                f"expected integers or text of shape ({rows[source]},)"
            )
    if len(keyed) < 2:
        items = _count_items(matrices)
        guessed = all(found[source].is_guessed for source in keyed)
        return Join(items, found[keyed[0]].values_N if keyed else None, (), tuple(notes), guessed)
    values = _comparable([found[source].values_N for source in keyed])
    if all(np.array_equal(values[0], other) for other in values[1:]):
        guessed = all(found[source].is_guessed for source in keyed)
        return Join(_count_items(matrices), values[0], (), tuple(notes), guessed)
    _, codes = np.unique(np.concatenate(values), return_inverse=True)
    codes_F = np.split(codes.reshape(-1), np.cumsum([len(v) for v in values])[:-1])
    common = _common(codes_F)
    guessed = all(found[source].is_guessed for source in keyed)
    if guessed and len(set(rows.values())) == 1 and common <= _CHANCE_MATCHES * len(values[0]):
        notes.append(_drop_guessed(keyed, found, common))
        return Join(_count_items(matrices), None, (), tuple(notes))
    if common == 0:
        raise DataError(_no_common(keyed, values))
    axis, base = _axis(codes_F, keyed)
    _check_unkeyed(rows, keyed, base, len(axis))
    order: dict[CollectedFile, NDArray[np.int64]] = {}
    for source, code_F in zip(keyed, codes_F, strict=True):
        order[source] = _order(axis, code_F, is_base=source is keyed[base])
        if not np.array_equal(order[source], np.arange(rows[source])):
            source.order_N = order[source]
    ids_N = _ids(axis, codes_F, values)
    _follow(sources, rows, keyed[base], len(axis))
    matched = tuple(source.file.label for source in keyed if source.order_N is not None)
    notes += _coverage(keyed, order)
    return Join(len(axis), ids_N, matched, tuple(notes))


def _drop_guessed(keyed: Sequence[CollectedFile], found: dict[CollectedFile, FoundIds], common: int) -> str:
    for source in {found[source].source for source in keyed}:
        entries = {key: entry for key, entry in source.file.entries.items() if key != "ids"}
        source.file = replace(source.file, entries=entries)
    label = " and ".join(source.file.label for source in keyed)
    values = f"only {common:,} common values" if common else "no common value"
    return f"the guessed ids of {label} have {values}, so rows are matched by their order"


def _row_counts(matrices: Matrices) -> dict[CollectedFile, int]:
    rows: dict[CollectedFile, int] = {}
    first: dict[CollectedFile, str] = {}
    for name, (source, entry) in matrices.items():
        expected = rows.setdefault(source, entry.shape[0])
        first.setdefault(source, name)
        if entry.shape[0] != expected:
            raise DataError(
                f"{name!r} ({source.place(entry)}) has {entry.shape[0]:,} rows, but {first[source]!r} in the same file "
                f"has {expected:,}; row i of every array of a file must be the same item; mark missing rows with a "
                f"bool array present.{name}, or exclude one array with --modalities"
            )
    return rows


def _row_count(ids: FoundIds) -> int:
    return ids.entry.shape[0]


def _attach_ids(
    sources: Sequence[CollectedFile], rows: dict[CollectedFile, int], found: dict[CollectedFile, FoundIds]
) -> list[str]:
    """Use a file that contains only ids as the ids of the other files in its folder."""
    notes = []
    givers = [source for source in sources if source in found and source not in rows]
    for giver in givers:
        lacking = [source for source in rows if source not in found]
        near = [source for source in lacking if source.folder == giver.folder and source.folder is not None]
        own = [source for source in near if giver.file.stem.startswith(source.file.stem)]
        for source in own or near or (lacking if len(givers) == 1 else []):
            if rows[source] == _row_count(found[giver]):
                found[source] = found[giver]
            else:
                notes.append(
                    f"{giver.file.label} has {_row_count(found[giver]):,} ids, but {source.file.label} has "
                    f"{rows[source]:,} rows, so these ids are not used"
                )
    return notes


def _count_items(matrices: Matrices) -> int:
    first = next(iter(matrices))
    source, entry = matrices[first]
    items, first_place = entry.shape[0], source.place(entry)
    for name, (source, entry) in matrices.items():
        if entry.shape[0] != items:
            raise DataError(
                f"{name!r} ({source.place(entry)}) has {entry.shape[0]:,} rows, but {first!r} ({first_place}) "
                f"has {items:,}; row i of every modality must be the same item; use the same order and length, "
                f"and mark missing rows with a bool array present.{name}, or store `ids` in both files (or --id NAME)"
            )
    return items


def _comparable(values: list[Array]) -> list[Array]:
    kinds = {value.dtype.kind for value in values}
    if any(value.dtype.kind == "u" and len(value) and value.max() > np.iinfo(np.int64).max for value in values):
        return [value.astype(np.str_) for value in values]
    if kinds <= {"i", "u"}:
        return [value.astype(np.int64) for value in values]
    if kinds & {"i", "u"}:
        texts = [value for value in values if value.dtype.kind not in "iu"]
        numbers = [_as_integers(text) for text in texts]
        # "007" and "7" are different ids, so convert only if all strings are numbers and stay distinct.
        if all(number is not None for number in numbers):
            return [value.astype(np.int64) if value.dtype.kind in "iu" else _integers(value) for value in values]
    return [value.astype(np.str_) for value in values]


def _as_integers(texts: Array) -> Array | None:
    try:
        numbers = _integers(texts)
    except (ValueError, OverflowError):
        return None
    return numbers if len(np.unique(numbers)) == len(np.unique(texts)) else None


def _integers(texts: Array) -> Array:
    return texts.astype(np.int64)


def _common(codes_F: Sequence[NDArray[np.int64]]) -> int:
    _, counts = np.unique(np.concatenate([np.unique(code_F) for code_F in codes_F]), return_counts=True)
    return int((counts > 1).sum())


def _axis(codes_F: Sequence[NDArray[np.int64]], keyed: Sequence[CollectedFile]) -> tuple[NDArray[np.int64], int]:
    repeating = [i for i, code_F in enumerate(codes_F) if len(np.unique(code_F)) < len(code_F)]
    for i in repeating[1:]:
        if not np.array_equal(codes_F[i], codes_F[repeating[0]]):
            first, other = keyed[repeating[0]].file.label, keyed[i].file.label
            same = np.array_equal(np.sort(codes_F[i]), np.sort(codes_F[repeating[0]]))
            what = (
                "they have the same values in a different order, and some values repeat; sort both files by their ids"
            )
            if not same:
                what = "ids repeat in both files, so rows cannot be matched; choose unique ids with --id NAME"
            raise DataError(f"ids in {first} and {other} differ: {what}")
    base = repeating[0] if repeating else 0
    axis = codes_F[base]
    for code_F in codes_F:
        new_F = code_F[~np.isin(code_F, axis)]
        axis = np.concatenate([axis, new_F])
    return axis, base


def _order(axis: NDArray[np.int64], code_F: NDArray[np.int64], *, is_base: bool) -> NDArray[np.int64]:
    """Return the row of each item in the file; -1 for absent items."""
    if is_base or np.array_equal(axis[: len(code_F)], code_F):
        return np.where(np.arange(len(axis)) < len(code_F), np.arange(len(axis)), -1)
    row = np.full(int(axis.max()) + 1, -1, np.int64)
    row[code_F] = np.arange(len(code_F))
    return row[axis]


def _ids(axis: NDArray[np.int64], codes_F: Sequence[NDArray[np.int64]], values: Sequence[Array]) -> Array:
    code, where = np.unique(np.concatenate(codes_F), return_index=True)
    ids: Array = np.concatenate(values)[where[np.searchsorted(code, axis)]]
    return ids


def _check_unkeyed(rows: dict[CollectedFile, int], keyed: Sequence[CollectedFile], base: int, items: int) -> None:
    for source in rows:
        if source not in keyed and (rows[source] != rows[keyed[base]] or items != rows[source]):
            raise DataError(
                f"{source.file.label} has no ids, but the ids of {' and '.join(other.file.label for other in keyed)} "
                "have different values or a different order; store `ids` in it, or add a file ids.npy to its folder"
            )


def _follow(sources: Sequence[CollectedFile], rows: dict[CollectedFile, int], base: CollectedFile, items: int) -> None:
    for source in sources:
        if source in rows:
            continue
        lengths = {entry.shape[0] for entry in source.file.entries.values() if len(entry.shape) == 1}
        hosts = [host for host in rows if {rows[host]} == lengths]
        near = [host for host in hosts if host.folder == source.folder]
        host = base if base in (near or hosts) else next(iter(near or hosts), None)
        if host is not None:
            source.order_N = host.order_N


def _no_common(keyed: Sequence[CollectedFile], values: Sequence[Array]) -> str:
    listed = "; ".join(
        f"{source.file.label}: {', '.join(map(repr, value[:_SHOWN].tolist()))}, ..."
        for source, value in zip(keyed, values, strict=True)
    )
    return (
        f"ids in {' and '.join(source.file.label for source in keyed)} differ: they have no common value ({listed}); "
        "choose other ids with --id NAME, or remove the ids of one file if row i of every file is the same item"
    )


def _coverage(keyed: Sequence[CollectedFile], order: dict[CollectedFile, NDArray[np.int64]]) -> list[str]:
    return [
        f"{source.file.label} has {int((order[source] >= 0).sum()):,} of the {len(order[source]):,} items; the other "
        "items are absent in this file"
        for source in keyed
        if (order[source] < 0).any()
    ]
