"""Determine which columns of a manifest are modalities and which are values of the item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unialign._checks import suggestion
from unialign.errors import ConfigError, DataError
from unialign.media import KINDS, Kind
from unialign.readers._columns import choose_columns
from unialign.readers._item_records import ItemOptions, kind_of_name

__all__ = ["Field", "Modality", "Plan", "field_of_values", "make_plan"]

# Type of the values of a column: "cell" is the JSON form of a cell, "texts" a list of texts.
Holds = Literal["text", "number", "vector", "cell", "texts", "other"]
How = Literal["value", "path", "vector", "cell"]

# Default names of the columns with per-item values.
_VALUE_COLUMNS = {
    "id": ("id", "key", "__key__"),
    "group": ("group", "groups"),
    "ids": ("ids",),
    "label": ("label", "labels"),
    "split": ("split",),
}
_FILE_NAME = "file_name"
_CAPTIONS = ("caption", "captions")
_LISTED = 12


@dataclass(frozen=True)
class Field:
    """Column of a manifest; `kind` comes from the schema or from the suffixes of paths."""

    name: str
    holds: Holds
    kind: Kind | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Modality:
    """Modality of a manifest.

    Attributes:
        columns: columns with its cells, in order of priority, and how values are converted to cells.
        span: columns with the start and the end in seconds, or None.
    """

    name: str
    kind: Kind
    columns: tuple[tuple[str, How], ...]
    span: tuple[str, str] | None = None


@dataclass(frozen=True)
class Plan:
    """Meaning of the columns.

    Attributes:
        values: "id", "group", "ids", "label" and "split" -> column.
        names: column -> class names.
        expanded: column whose lists of texts are expanded to one item per text, or None.
        unused: columns without a meaning.
    """

    modalities: tuple[Modality, ...]
    values: Mapping[str, str]
    names: Mapping[str, tuple[str, ...]]
    expanded: str | None
    unused: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, Kind]:
        return {modality.name: modality.kind for modality in self.modalities}

    @property
    def needed(self) -> list[str]:
        columns = [column for modality in self.modalities for column, _ in modality.columns]
        columns += [column for modality in self.modalities for column in modality.span or ()]
        return list(dict.fromkeys([*columns, *self.values.values()]))

    def notes(self, where: object) -> list[str]:
        notes = []
        if self.unused:
            notes.append(f"{where}: columns without a rule are not used: {_listed(self.unused)}")
        if self.expanded:
            notes.append(
                f"{where}: each text in the lists of {self.expanded!r} is an item; the items of a row have equal ids"
            )
        return notes


def field_of_values(name: str, values: Sequence[Any]) -> Field:
    """Determine the type of a column from some of its values, which must not contain None."""
    types = {type(value) for value in values}
    if types <= {str}:
        texts = [value for value in values if value.strip()]
        if texts and all(text.lstrip()[:1] == "[" and text.rstrip()[-1:] == "]" for text in texts):
            return Field(name, "vector")
        kinds = {kind_of_name(text) if "\n" not in text else None for text in texts}
        return Field(name, "text", next(iter(kinds)) if len(kinds) == 1 else None)
    if types <= {int, float, bool}:
        return Field(name, "number")
    if types == {list}:
        entries = {type(entry) for value in values for entry in value}
        return Field(name, "texts" if entries == {str} else "vector" if entries <= {int, float} else "other")
    if types == {dict} and all({"path", "value", "array", "table"} & value.keys() for value in values):
        names = [str(value.get("name") or value.get("path") or "") for value in values]
        kinds = {kind_of_name(text) for text in names}
        kind: Kind | None = "array" if any("array" in value for value in values) else next(iter(kinds))
        return Field(name, "cell", kind if len(kinds) == 1 else None)
    return Field(name, "other")


def make_plan(fields: Sequence[Field], options: ItemOptions, where: object) -> Plan:
    by_name = {field.name: field for field in fields}
    values = _value_columns(by_name, options, where)
    if options.rules:
        modalities = [_ruled(name, columns, by_name, options, where) for name, columns in options.rules.items()]
    else:
        taken = set(values.values()) - {_FILE_NAME}
        modalities = [found for field in fields if field.name not in taken and (found := _guessed(field, options))]
        modalities = _unique(modalities, where)
    modalities = [_with_span(modality, by_name) for modality in modalities]
    if not modalities:
        series, _ = choose_columns(dict.fromkeys(by_name, "f"))
        vectors = " and ".join(f"{found.columns[0]} to {found.columns[-1]}" for found in series)
        advice = f"; the vectors in {vectors} are read by: unialign train {where}" if vectors else ""
        raise DataError(
            f"{where} has the columns {_listed(list(by_name))}, none of which is evidently a modality; define "
            f"modalities with rules, such as --rule text={next(iter(by_name), 'caption')}{advice}"
        )
    lists = [column for modality in modalities for column, _ in modality.columns if by_name[column].holds == "texts"]
    if len(lists) > 1:
        raise ConfigError(
            f"{where}: {lists[0]!r} and {lists[1]!r} both contain lists of texts; choose one of them with a rule"
        )
    names = {column: by_name[column].names for column in values.values() if by_name[column].names}
    plan = Plan(tuple(modalities), values, names, lists[0] if lists else None, ())
    unused = tuple(name for name in by_name if name not in plan.needed)
    return Plan(plan.modalities, values, names, plan.expanded, unused)


def _value_columns(by_name: Mapping[str, Field], options: ItemOptions, where: object) -> dict[str, str]:
    ruled = {column for columns in options.rules.values() for column in columns}
    values = {}
    for value, usual in _VALUE_COLUMNS.items():
        if value in options.values:
            values[value] = _column(options.values[value], by_name, where)
            continue
        found = next((name for name in usual if name in by_name and name not in ruled), None)
        if found is not None:
            values[value] = found
    if "id" not in values and _FILE_NAME in by_name:
        values["id"] = _FILE_NAME
    if "label" not in values:
        classes = [field.name for field in by_name.values() if field.names]
        values |= {"label": classes[0]} if len(classes) == 1 else {}
    return values


def _column(name: str, by_name: Mapping[str, Field], where: object) -> str:
    if name not in by_name:
        raise DataError(f"{where} has no column {name!r}; it has {_listed(list(by_name))}{suggestion(name, by_name)}")
    return name


def _ruled(
    name: str, columns: Sequence[str], by_name: Mapping[str, Field], options: ItemOptions, where: object
) -> Modality:
    fields = [by_name[_column(column, by_name, where)] for column in columns]
    kind = options.kinds.get(name) or next((field.kind for field in fields if field.kind), None)
    if kind is None:
        if name in KINDS:
            kind = name
        else:
            kind = "array" if any(field.holds == "vector" for field in fields) else "text"
    return Modality(name, kind, tuple((field.name, _how(field, kind, where)) for field in fields))


def _guessed(field: Field, options: ItemOptions) -> Modality | None:
    """Return the modality of a column; None if its meaning is not evident."""
    name, column = field.name, field.name
    if column == _FILE_NAME:
        name = field.kind or "image"
    elif column.endswith(f"_{_FILE_NAME}"):
        name = column[: -len(_FILE_NAME) - 1]
    kind = options.kinds.get(name) or field.kind
    if kind is None and name in KINDS:
        kind = name
    if kind is None and field.holds in ("text", "texts") and column in _CAPTIONS:
        kind = "text"
    if kind is None and field.holds == "vector":
        kind = "array"
    if kind is None or not _fits(field, kind):
        return None
    return Modality(name, kind, ((column, _how(field, kind, column)),))


def _unique(modalities: Sequence[Modality], where: object) -> list[Modality]:
    """Raise ConfigError if two columns would be the same modality."""
    found: dict[str, Modality] = {}
    for modality in modalities:
        other = found.setdefault(modality.name, modality)
        if other is not modality:
            raise ConfigError(
                f"{where}: both {other.columns[0][0]!r} and {modality.columns[0][0]!r} may be {modality.name!r}; "
                "choose one with a rule"
            )
    return list(found.values())


def _fits(field: Field, kind: Kind) -> bool:
    if kind == "text":
        return field.holds in ("text", "texts", "cell")
    return field.holds in (("vector", "text", "cell") if kind == "array" else ("text", "cell"))


def _how(field: Field, kind: Kind, where: object) -> How:
    if not _fits(field, kind):
        raise DataError(
            f"{where}: the column {field.name!r} holds {_HELD[field.holds]}, which cannot be {kind}; choose another "
            "column or another kind"
        )
    if field.holds == "cell":
        return "cell"
    if kind == "text":
        is_path = field.kind == "text" or field.name.endswith(_FILE_NAME)
        return "path" if is_path and field.holds == "text" else "value"
    return "vector" if field.holds == "vector" else "path"


def _listed(names: Sequence[str]) -> str:
    shown = [name if name.strip() else "a column without a name" for name in names[:_LISTED]]
    return ", ".join(shown) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _with_span(modality: Modality, by_name: Mapping[str, Field]) -> Modality:
    if modality.kind not in ("audio", "video"):
        return modality
    for name in (modality.name, modality.columns[0][0]):
        if f"{name}.start" in by_name and f"{name}.end" in by_name:
            return Modality(modality.name, modality.kind, modality.columns, (f"{name}.start", f"{name}.end"))
    return modality


_HELD: Mapping[Holds, str] = {
    "text": "texts",
    "number": "numbers",
    "vector": "vectors",
    "cell": "media",
    "texts": "lists of texts",
    "other": "values of another type",
}
