"""Validate the arguments of a store and convert them to files.

Shapes: `N` items, `W` dimension of a column.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from unialign._checks import check_choice, has_surrogate, suggestion
from unialign.data._finite_rows import check_finite_rows
from unialign.data._item_images import pack_assets
from unialign.data._item_values import Array, default_values, text_keys, to_numpy, validate_values
from unialign.data._layout import (
    COLUMN_DTYPES,
    KEYS_FILE,
    NAMES_FILE,
    ROW_DTYPES,
    Column,
    Description,
    FileRecord,
    array_file,
    asset_file,
    present_file,
    rows_file,
    unsafe_name,
)
from unialign.data._storage import FileContent
from unialign.data._streamed_asset import StreamedAsset
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.io import canonical_json
from unialign.readers import first_appearance_codes

__all__ = ["StoreOptions", "check_names", "chosen_columns", "float_matrix", "named_column", "validate"]

T = TypeVar("T")


# A mapping of file name to bytes or of column to image files, or a folder of images.
Assets = (
    Mapping[str, bytes | StreamedAsset | str | PathLike[str] | Sequence[str | PathLike[str] | None]]
    | str
    | PathLike[str]
)


class StoreOptions(TypedDict, total=False):
    """Options of `EmbeddingStore.write` and `from_arrays`."""

    present: Mapping[str, ArrayLike] | None
    ids: ArrayLike | None
    groups: ArrayLike | None
    labels: ArrayLike | None
    label_names: Sequence[str] | None
    split: ArrayLike | None
    names: Sequence[str] | None
    provenance: Mapping[str, Any] | None
    default_modalities: Sequence[str] | None
    assets: Assets | None


def validate(
    columns: Mapping[str, ArrayLike], name: str, options: StoreOptions, *, checked: Collection[str] = ()
) -> tuple[dict[str, FileContent], Callable[[Mapping[str, FileRecord]], Description]]:
    """Return the content of each file, and a function that maps the records of these files to the description."""
    for option in options:
        check_choice("option of a store", option, StoreOptions.__annotations__)
    if not isinstance(name, str) or has_surrogate(name):
        raise DataError(f"the name of a store must be valid UTF-8 text, got {name!r}; pass another `name=`")
    columns = _mapping(columns, "columns", "names to (items, dim) arrays")
    if not columns:
        raise ShapeError("a store needs at least one column, got none")
    check_names(columns, "column")
    arrays = {column: float_matrix(value, column) for column, value in columns.items()}
    items = _common_rows(arrays)
    masks = _masks(_mapping(options.get("present"), "present", "column names to (items,) bool arrays"), arrays, items)
    for column, array_NW in arrays.items():
        if column not in checked:
            check_finite_rows(array_NW, masks.get(column), column)
    label_names = _texts(options.get("label_names"), "label_names") or ()
    values: dict[str, Any] = {key: options.get(key) for key in ROW_DTYPES}
    keys = text_keys(values["ids"], items)
    if keys is not None:
        values["ids"] = first_appearance_codes(np.array(keys, np.str_))
    rows = validate_values(values, items, label_names)
    names = _item_names(options.get("names"), items)
    overall, by_column = _provenance(_mapping(options.get("provenance"), "provenance", "names to JSON values"), arrays)
    assets = pack_assets(
        options.get("assets") or {}, list(arrays), items, keys=keys, names=names, ids=options.get("ids")
    )
    check_names(assets, "asset")
    modalities = options.get("default_modalities")
    chosen = chosen_columns(arrays if modalities is None else modalities, arrays)
    # Do not store default values, so that equal data have equal fingerprints.
    rows = {key: x_N for key, x_N in rows.items() if not np.array_equal(x_N, default_values(key, items))}
    masks = {column: mask_N for column, mask_N in masks.items() if not mask_N.all()}

    def describe(records: Mapping[str, FileRecord]) -> Description:
        return Description(
            name=name,
            items=items,
            columns={
                column: Column(
                    dtype=array_NW.dtype.name,
                    dim=array_NW.shape[1],
                    array=records[array_file(column)],
                    present=records.get(present_file(column)),
                    provenance=by_column.get(column),
                )
                for column, array_NW in arrays.items()
            },
            default_modalities=chosen,
            rows={kind: records[rows_file(kind)] for kind in rows},
            names=records.get(NAMES_FILE),
            keys=records.get(KEYS_FILE),
            assets={asset: records[asset_file(asset)] for asset in assets},
            label_names=label_names,
            provenance=overall,
        )

    return _files(arrays, masks, rows, assets, {NAMES_FILE: names, KEYS_FILE: keys}), describe


def chosen_columns(chosen: Sequence[str] | Mapping[str, object], columns: Mapping[str, object]) -> tuple[str, ...]:
    if isinstance(chosen, str):
        raise ConfigError(f"columns is the string {chosen!r}, expected a list of names such as [{chosen!r}]")
    if not isinstance(chosen, Iterable):
        raise ConfigError(f"columns is {chosen!r}, expected a list of names among {list(columns)}")
    names = tuple(chosen)
    for name in names:
        named_column(name, columns)
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"columns must have at least one name and no repeated names, got {list(names)}; the store "
            f"has {list(columns)}"
        )
    return names


def named_column(name: str, columns: Mapping[str, T]) -> T:
    if not isinstance(name, str) or name not in columns:
        known = ", ".join(map(repr, columns))
        raise ConfigError(f"unknown column {name!r}; the store has {known}{suggestion(name, columns)}")
    return columns[name]


def _mapping(value: Mapping[str, T] | None, what: str, expected: str) -> Mapping[str, T]:
    if value is not None and not isinstance(value, Mapping):
        raise DataError(f"{what} must map {expected}, got {type(value).__name__}")
    return value or {}


def check_names(names: Mapping[str, object], what: str) -> None:
    folded: dict[str, str] = {}
    for name in names:
        problem = unsafe_name(name)
        if problem is not None:
            raise DataError(f"{what} name {name!r} cannot be a file name: {problem}")
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(f"{what} names {other!r} and {name!r} differ only in case, which some file systems ignore")


def float_matrix(value: ArrayLike, column: str, *, allow_empty: bool = False) -> Array:
    array_NW = to_numpy(value, f"column {column!r}")
    if array_NW.ndim != 2:
        raise ShapeError(f"column {column!r} has shape {array_NW.shape}, expected two dimensions (items, dim)")
    if array_NW.dtype.name not in COLUMN_DTYPES:
        raise ShapeError(
            f"column {column!r} has dtype {array_NW.dtype}, expected {', '.join(COLUMN_DTYPES)}; convert it first"
        )
    if 0 in array_NW.shape[allow_empty:]:
        raise ShapeError(f"column {column!r} has shape {array_NW.shape}, expected at least one row and one dimension")
    # torch supports only native byte order.
    return array_NW.astype(array_NW.dtype.newbyteorder("="), copy=False)


def _common_rows(arrays: Mapping[str, Array]) -> int:
    first = next(iter(arrays))
    items = len(arrays[first])
    for column, array_NW in arrays.items():
        if len(array_NW) != items:
            raise ShapeError(
                f"column {column!r} has {len(array_NW)} rows, {first!r} has {items}; every column needs one row per "
                f"item (mark absent rows, which may hold any values, with `present=`)"
            )
    return items


def _masks(present: Mapping[str, ArrayLike], arrays: Mapping[str, Array], items: int) -> dict[str, Array]:
    masks = {}
    for column, value in present.items():
        named_column(column, arrays)
        mask_N = to_numpy(value, f"present of {column!r}")
        if mask_N.dtype != np.bool_ or mask_N.shape != (items,):
            raise ShapeError(
                f"present of {column!r} has dtype {mask_N.dtype} and shape {mask_N.shape}, expected bool and ({items},)"
            )
        masks[column] = mask_N
    return masks


def _texts(values: Sequence[str] | None, what: str) -> tuple[str, ...] | None:
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"{what} is {values!r}; expected a sequence of strings")
    texts = tuple(values)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{what}: entry {place} is {text!r}; expected a sequence of strings")
        if has_surrogate(text):
            raise DataError(f"{what}: entry {place} is {text!r}, which is not valid UTF-8 text; correct it")
    return texts


def _item_names(values: Sequence[str] | None, items: int) -> tuple[str, ...] | None:
    names = _texts(values, "names")
    if names is not None and len(names) != items:
        raise ShapeError(f"names has {len(names)} entries for {items} items; pass one name per item")
    return names


def _files(
    arrays: Mapping[str, Array],
    masks: Mapping[str, Array],
    rows: Mapping[str, Array],
    assets: Mapping[str, bytes | StreamedAsset],
    texts: Mapping[str, Sequence[str] | None],
) -> dict[str, FileContent]:
    files: dict[str, FileContent] = {array_file(column): array_NW for column, array_NW in arrays.items()}
    files |= {present_file(column): mask_N for column, mask_N in masks.items()}
    files |= {rows_file(kind): values_N for kind, values_N in rows.items()}
    files |= {asset_file(asset): content for asset, content in assets.items()}
    for file, values in texts.items():
        if values is not None:
            files[file] = json.dumps(values, indent=0).encode("ascii")
    return files


def _provenance(provenance: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        # Round-trip through JSON, which converts tuples and integer keys to their stored form.
        overall: dict[str, Any] = json.loads(canonical_json(dict(provenance)))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"provenance must be a JSON object: {error}") from None
    by_column = overall.pop("columns", {})
    if not isinstance(by_column, dict):
        raise DataError(
            f"provenance['columns'] is {by_column!r}, expected an object that maps column names to descriptions"
        )
    for column in by_column:
        named_column(column, arrays)
    return overall, by_column
