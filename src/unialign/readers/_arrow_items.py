"""List the items of Arrow columns. Media and vectors stay in the file, and cells refer to their rows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign.media import Kind
from unialign.readers._item_records import Folders
from unialign.readers._manifest_plan import Field, field_of_values

__all__ = [
    "arrow_fields",
    "features_of",
    "first_values",
    "is_reference",
    "leaf_of",
    "row_values",
    "sampled_columns",
    "table_place",
]

_METADATA = b"huggingface"
_KINDS: Mapping[str, Kind] = {"Image": "image", "Audio": "audio", "Video": "video"}
_TEXTS = ("string", "large_string", "string_view")
_BYTES = ("binary", "large_binary", "binary_view")
_FLOATS = ("halffloat", "float", "double")


def features_of(schema: Any) -> Mapping[str, Any]:
    """Return the `features` that the library `datasets` stores in the metadata of a schema."""
    text = (schema.metadata or {}).get(_METADATA)
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def arrow_fields(schema: Any, first: Mapping[str, Sequence[Any]]) -> list[Field]:
    features = features_of(schema)
    return [_field(field, features.get(field.name), first) for field in schema]


def sampled_columns(schema: Any) -> list[str]:
    """Return the columns or leaves whose values must be read to determine the kind of a column."""
    texts = [field.name for field in schema if _text_type(field.type) in _TEXTS]
    return texts + [f"{field.name}.path" for field in schema if is_media(field.type)]


def first_values(schema: Any, batch: Any) -> dict[str, Sequence[Any]]:
    found: dict[str, Sequence[Any]] = {}
    for name in sampled_columns(schema):
        is_column = name in schema.names
        values = batch.column(name if is_column else name.removesuffix(".path")).to_pylist()
        found[name] = values if is_column else [value and value["path"] for value in values]
    return found


def is_media(kind: Any) -> bool:
    """Return whether a type is a struct of `bytes` and `path`, as the library `datasets` writes media."""
    return str(kind).startswith("struct") and {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}


def is_reference(kind: Any) -> bool:
    """Return whether cells refer to the values in the file instead of copying them."""
    return is_media(kind) or str(kind) in _BYTES or _is_vectors(kind)


def leaf_of(name: str, kind: Any) -> str:
    """Return `image.bytes` for the media column `image`."""
    return f"{name}.bytes" if is_media(kind) else name


def _field(field: Any, feature: Any, first: Mapping[str, Sequence[Any]]) -> Field:
    name, kind = field.name, field.type
    declared = feature.get("_type") if isinstance(feature, dict) else None
    text = _text_type(kind)
    if text in _TEXTS:
        return field_of_values(name, [value for value in first.get(name, ()) if value])
    if is_media(kind):
        paths = field_of_values(name, [value for value in first.get(f"{name}.path", ()) if value])
        return Field(name, "cell", _KINDS.get(declared or "", paths.kind))
    if text in _BYTES:
        return Field(name, "cell", _KINDS.get(declared or ""))
    if text.startswith(("list", "large_list", "fixed_size_list")):
        entry = str(kind.value_type)
        if entry in _FLOATS:
            return Field(name, "cell", "array")
        return Field(name, "texts" if entry in _TEXTS else "other")
    if text.startswith(("int", "uint")):
        return Field(name, "number", names=_classes(feature) if declared == "ClassLabel" else ())
    return Field(name, "number" if text in (*_FLOATS, "bool") else "other")


def _classes(feature: Mapping[str, Any]) -> tuple[str, ...]:
    names = feature.get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def row_values(
    columns: Mapping[str, Any], start: int, size: int, table: Mapping[str, Any]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number and the values of each row. `columns` contains Arrow arrays, or the name of the referenced leaf
    if all rows are present.
    """
    values = {name: _values(name, column, start, size, table) for name, column in columns.items()}
    names = list(values)
    for i, row in enumerate(zip(*values.values(), strict=True) if values else ((),) * size, start):
        yield i, dict(zip(names, row, strict=True))


def table_place(path: Path, folders: Folders, kinds: Iterable[Any]) -> dict[str, Any]:
    """Return the entries `table` and `root` of references; empty if no type is a reference."""
    if not any(map(is_reference, kinds)):
        return {}
    absolute = path.absolute()
    for root, folder in enumerate(folders.roots):
        if absolute.is_relative_to(folder):
            return {"table": absolute.relative_to(folder).as_posix(), "root": root}
    return {"table": absolute.name, "root": folders.add(absolute.parent)}


def _values(name: str, column: Any, start: int, size: int, table: Mapping[str, Any]) -> Sequence[Any]:
    if isinstance(column, str):
        return [{**table, "column": column, "row": row} for row in range(start, start + size)]
    compute = import_module("pyarrow.compute")
    kind = str(column.type)
    if is_media(column.type):
        inner = leaf_of(name, column.type)
        held = compute.is_valid(compute.struct_field(column, "bytes")).to_pylist()
        paths = compute.struct_field(column, "path").to_pylist()
        rows = zip(held, paths, strict=True)
        return [
            {**table, "column": inner, "row": row} if has_bytes else ({"path": path} if path else None)
            for row, (has_bytes, path) in enumerate(rows, start)
        ]
    if kind in _BYTES or _is_vectors(column.type):
        held = compute.is_valid(column).to_pylist()
        if _is_vectors(column.type) and not kind.startswith("fixed"):
            held = [bool(length) for length in compute.list_value_length(column).to_pylist()]
        return [{**table, "column": name, "row": row} if ok else None for row, ok in enumerate(held, start)]
    found: list[Any] = column.to_pylist()
    return found


def _text_type(kind: Any) -> str:
    return str(kind.value_type) if str(kind).startswith("dictionary") else str(kind)


def _is_vectors(kind: Any) -> bool:
    return str(kind).startswith(("list", "large_list", "fixed_size_list")) and str(kind.value_type) in _FLOATS
