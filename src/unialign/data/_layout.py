"""File names, schema and fingerprint of a store. File names never come from `store.json`, which may be malicious."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from unialign._checks import unsafe_name
from unialign.errors import DataError
from unialign.io import add_checksum, canonical_json, digest, is_unchanged

__all__ = ["DESCRIPTION_FILE", "SPLITS", "Column", "Description", "FileRecord", "parse_description", "unsafe_name"]

SCHEMA = 1
DESCRIPTION_FILE = "store.json"
NAMES_FILE = "names.json"
KEYS_FILE = "keys.json"
SPLITS = ("train", "val", "test")
COLUMN_DTYPES = ("float16", "float32", "float64")
# Dtypes of the per-item integers. Their files are optional; `EmbeddingStore` documents the defaults.
ROW_DTYPES: dict[str, DTypeLike] = {"ids": np.int64, "groups": np.int64, "labels": np.int64, "split": np.int8}
ITEM_DTYPES = {**ROW_DTYPES, "present": np.bool_}

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Size of the address space; larger file sizes are invalid.
_MAX_BYTES = 1 << 47


T = TypeVar("T")


@dataclass(frozen=True)
class FileRecord:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Column:
    """Description of an (N, W) array; `present` is None if all rows are present."""

    dtype: str
    dim: int
    array: FileRecord
    present: FileRecord | None
    provenance: Any


@dataclass(frozen=True)
class Description:
    name: str
    items: int
    columns: dict[str, Column]
    default_modalities: tuple[str, ...]
    rows: dict[str, FileRecord]
    names: FileRecord | None
    assets: dict[str, FileRecord]
    label_names: tuple[str, ...]
    provenance: dict[str, Any]
    keys: FileRecord | None = None

    def fingerprint(self) -> str:
        columns = {
            name: [column.array.sha256, column.present and column.present.sha256, column.provenance]
            for name, column in self.columns.items()
        }
        rows = {name: record.sha256 for name, record in self.rows.items()}
        keys = {} if self.keys is None else {"keys": self.keys.sha256}
        return digest(canonical_json({"columns": columns, "rows": rows, "provenance": self.provenance, **keys}))

    def files(self) -> dict[str, FileRecord]:
        files = {
            **{array_file(name): column.array for name, column in self.columns.items()},
            **{present_file(name): column.present for name, column in self.columns.items()},
            **{rows_file(kind): record for kind, record in self.rows.items()},
            **{asset_file(name): record for name, record in self.assets.items()},
            NAMES_FILE: self.names,
            KEYS_FILE: self.keys,
        }
        return {file: record for file, record in files.items() if record is not None}

    def to_bytes(self) -> bytes:
        entries = asdict(self)
        if self.keys is None:
            del entries["keys"]
        body = add_checksum({"schema": SCHEMA, **entries}, sort_keys=True)
        return (json.dumps(body, indent=1, allow_nan=False) + "\n").encode("ascii")


def array_file(column: str) -> str:
    return f"arrays/{column}.npy"


def present_file(column: str) -> str:
    return f"present/{column}.npy"


def rows_file(kind: str) -> str:
    return f"{kind}.npy"


def asset_file(name: str) -> str:
    return f"assets/{name}"


def check_unchanged(text: bytes, where: Path) -> None:
    body = _load_json(text, where)
    if not isinstance(body, dict) or not is_unchanged(body, sort_keys=True):
        raise DataError(f"{where} was altered after it was written; restore the file or write the store again")


def parse_description(text: bytes, where: Path) -> Description:
    body = _load_json(text, where)
    try:
        schema = body["schema"]
        if schema == SCHEMA:
            return _description(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{where} is not a store description ({what}); restore it or write the store again") from None
    raise DataError(
        f"{where} has schema {schema!r}, but this version of unialign reads schema {SCHEMA}; "
        f"update unialign or write the store again"
    )


def _load_json(text: bytes, where: Path) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not readable JSON ({type(error).__name__}: {error}); restore it or write the store again"
        ) from None


def _description(body: dict[str, Any]) -> Description:
    items = _integer(body["items"], "items", low=1)
    columns = {
        _name(name): _column(entry, name, items) for name, entry in _typed(body["columns"], dict, "columns").items()
    }
    if not columns:
        raise ValueError("columns is empty")
    modalities = _strings(body["default_modalities"], "default_modalities")
    if not modalities or len(set(modalities)) != len(modalities) or not set(modalities) <= set(columns):
        raise ValueError(f"default_modalities {list(modalities)} must be distinct columns among {sorted(columns)}")
    rows = _typed(body["rows"], dict, "rows")
    if not set(rows) <= set(ROW_DTYPES):
        raise ValueError(f"rows {sorted(rows)} must be among {sorted(ROW_DTYPES)}")
    return Description(
        name=_typed(body["name"], str, "name"),
        items=items,
        columns=columns,
        default_modalities=modalities,
        rows={kind: _record(entry, kind) for kind, entry in rows.items()},
        names=None if body["names"] is None else _record(body["names"], "names"),
        assets={_name(name): _record(entry, name) for name, entry in _typed(body["assets"], dict, "assets").items()},
        label_names=_strings(body["label_names"], "label_names"),
        provenance=_typed(body["provenance"], dict, "provenance"),
        keys=None if body.get("keys") is None else _record(body["keys"], "keys"),
    )


def _column(entry: dict[str, Any], name: str, items: int) -> Column:
    if entry["dtype"] not in COLUMN_DTYPES:
        raise ValueError(f"column {name!r} has dtype {entry['dtype']!r}, expected one of {', '.join(COLUMN_DTYPES)}")
    dim = _integer(entry["dim"], f"dim of {name!r}", low=1)
    record = _record(entry["array"], name)
    needed = items * dim * np.dtype(entry["dtype"]).itemsize
    if not needed < record.bytes <= _MAX_BYTES:
        raise ValueError(
            f"column {name!r} of {items} x {dim} {entry['dtype']} needs {needed} bytes, but its file has {record.bytes}"
        )
    return Column(
        dtype=entry["dtype"],
        dim=dim,
        array=record,
        present=None if entry["present"] is None else _record(entry["present"], f"present of {name!r}"),
        provenance=entry["provenance"],
    )


def _record(entry: dict[str, Any], what: str) -> FileRecord:
    sha256 = _typed(entry["sha256"], str, f"sha256 of {what!r}")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of {what!r} is {sha256!r}, expected 64 hexadecimal digits")
    return FileRecord(bytes=_integer(entry["bytes"], f"bytes of {what!r}", low=0), sha256=sha256)


def _name(name: str) -> str:
    problem = unsafe_name(name)
    if problem is not None:
        raise ValueError(f"invalid name {name!r}: {problem}")
    return name


def _integer(value: object, what: str, *, low: int) -> int:
    # bool is a subclass of int.
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= _MAX_BYTES:
        raise ValueError(f"{what} is {value!r}, expected an integer from {low} to {_MAX_BYTES}")
    return value


def _typed(value: object, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is {value!r}, expected a {kind.__name__}")
    return value


def _strings(value: object, what: str) -> tuple[str, ...]:
    return tuple(_typed(text, str, f"an entry of {what}") for text in _typed(value, list, what))
