"""Cells: one modality of one item, given as a value or as a reference to bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from unialign.errors import DataError
from unialign.media._kinds import Kind

__all__ = ["Cell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Cell of one modality of one item: exactly one of `value`, `path`, `array` and `table` is given.

    Args:
        value: a text, or the numbers of a vector.
        path: file with the media, relative to the root.
        at: offset and size in bytes of the media in the file, such as a member of a tar archive.
        name: name of that member, for messages.
        span: start and end in seconds, for audio and video.
        array: file with vectors, relative to the root: .npy, .npz, .safetensors, .h5, .h5ad or .h5mu.
        key: name of the array in that file, such as the member of an .npz archive or `obsm/X_pca`.
        table: .parquet or .arrow file, relative to the root.
        column: column of the table; `outer.inner` names a field of a struct column.
        row: row of the array or table, from 0.
        root: index of the root folder in the item table.
    """

    value: str | tuple[float, ...] | None = None
    path: str | None = None
    at: tuple[int, int] | None = None
    name: str | None = None
    span: tuple[float, float] | None = None
    array: str | None = None
    key: str | None = None
    table: str | None = None
    column: str | None = None
    row: int | None = None
    root: int = 0

    @property
    def file(self) -> str | None:
        """Return the file that the cell refers to, relative to its root; None for a value."""
        return self.path if self.path is not None else self.array if self.array is not None else self.table

    @property
    def where(self) -> str:
        """Return the location of the cell as text for messages."""
        if self.file is None:
            return f"value {self.value!r:.60}"
        parts = [self.file]
        if self.name is not None:
            parts.append(f"member {self.name!r}")
        elif self.at is not None:
            parts.append(f"bytes {self.at[0]} to {sum(self.at)}")
        if self.key is not None:
            parts.append(f"array {self.key!r}")
        if self.column is not None:
            parts.append(f"column {self.column!r}")
        if self.row is not None:
            parts.append(f"row {self.row}")
        if self.span is not None:
            parts.append(f"seconds {self.span[0]:g} to {self.span[1]:g}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the cell as a JSON object, without the fields that have their default value."""
        found = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None and not (name == "root" and value == 0):
                found[name] = list(value) if isinstance(value, tuple) else value
        return found

    @classmethod
    def from_json(cls, kind: Kind, value: Mapping[str, Any]) -> "Cell":
        """Build a cell from a JSON object.

        Raises:
            DataError: a field is unknown, missing or has the wrong type, or a path is absolute.
        """
        if not isinstance(value, Mapping):
            raise DataError(f"a cell must be an object such as {{'path': 'a.png'}}, got {value!r:.80}")
        allowed = [names for source, names in _FIELDS.items() if source in value]
        if len(allowed) != 1:
            raise DataError(f"a cell must have exactly one of {', '.join(_FIELDS)}, got {_names(value)}")
        if kind not in ("text", "array") and "value" in value:
            raise DataError(f"a cell of kind {kind!r} must refer to a file, got the value {value['value']!r:.60}")
        unknown = value.keys() - allowed[0]
        if unknown:
            raise DataError(f"a cell has the unexpected field {min(map(str, unknown))!r}; it has {_names(value)}")
        found: dict[str, Any] = {}
        for name, entry in value.items():
            expected, accept = (_TEXT if kind == "text" else _NUMBERS) if name == "value" else _CHECKS[name]
            if not accept(entry):
                raise DataError(f"field {name!r} of a cell must be {expected}, got {entry!r:.80}")
            found[name] = tuple(entry) if isinstance(entry, list | tuple) else entry
        missing = {"row", "column"} & allowed[0] - found.keys()
        if missing:
            raise DataError(f"a cell lacks the field {min(missing)!r}; it has {_names(value)}")
        return cls(**found)


_NAMES = tuple(field.name for field in fields(Cell))
_FIELDS = {
    "value": {"value"},
    "path": {"path", "at", "name", "span", "root"},
    "array": {"array", "key", "row", "root"},
    "table": {"table", "column", "row", "span", "root"},
}


def _names(value: Mapping[str, Any]) -> str:
    return ", ".join(map(str, value)) or "no field"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_pair(value: object, accept: Callable[[object], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(accept, value))


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value and not value.startswith("/")


def _is_span(value: Any) -> bool:
    return _is_pair(value, _is_number) and 0 <= value[0] < value[1] < float("inf")


def _is_vector(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_number, value))


_Check = tuple[str, Callable[[Any], bool]]
_TEXT: _Check = ("a string", lambda value: isinstance(value, str))
_NUMBERS: _Check = ("a list of numbers", _is_vector)
_PATH: _Check = ("a path relative to the root", _is_path)
_NAME: _Check = ("a string of at least one character", _is_text)
_WHOLE: _Check = ("an integer of at least 0", _is_whole)
_CHECKS: Mapping[str, _Check] = {
    "path": _PATH,
    "array": _PATH,
    "table": _PATH,
    "name": _NAME,
    "key": _NAME,
    "column": _NAME,
    "row": _WHOLE,
    "root": _WHOLE,
    "at": ("a list of offset and size in bytes", lambda value: _is_pair(value, _is_whole)),
    "span": ("a list of start and end in seconds, with start < end", _is_span),
}
