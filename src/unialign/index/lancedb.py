"""Export an index to LanceDB, and search it there.

Each export writes a new table and then names it in the table `manifest`, so that readers see the old or the new one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module
from unialign.errors import ConfigError, DataError
from unialign.index._backends import Row
from unialign.index._filter import Combination, Comparison, Expression, Membership, Not, Presence, Value

_MANIFEST = "manifest"
_COLUMNS = ("key", "label")


class LanceDB:
    """A folder of LanceDB tables. Cosine distance of `v_any`, or of `v_0`, `v_1`, ... for the modalities in order,
    ranks items as this library does without CSLS.

    Args:
        address: path of the folder, or another address that `lancedb.connect` accepts.

    Raises:
        MissingDependencyError: lancedb is not installed.
    """

    name = "lancedb"

    def __init__(self, address: str) -> None:
        library = optional_module("lancedb", "an index in LanceDB", "lancedb")
        self._arrow = optional_module("pyarrow", "an index in LanceDB", "lancedb")
        self._db = library.connect(address)
        self._address = address
        self._opened: tuple[Any, Mapping[str, Any]] | None = None

    def replace(
        self, rows: Iterator[list[Row]], *, modalities: Sequence[str], dim: int, manifest: Mapping[str, Any]
    ) -> int:
        """Write all items to a new table, and drop the table of the previous export."""
        batches = list(rows)
        fields = sorted({name for batch in batches for row in batch for name in row.metadata})
        schema = self._schema(modalities, dim, len(fields))
        known = set(self._table_names())
        table = next(name for number in range(len(known) + 1) if (name := f"items_{number}") not in known)
        converted = (self._batch(batch, modalities, dim, fields, schema) for batch in batches)
        reader = self._arrow.RecordBatchReader.from_batches(schema, converted)
        created = self._db.create_table(table, data=reader, schema=schema, on_bad_vectors="null")
        text = json.dumps(dict(manifest) | {"table": table, "fields": fields})
        self._db.create_table(_MANIFEST, data=self._arrow.table({"manifest": [text]}), mode="overwrite")
        for name in known - {_MANIFEST}:
            if name.startswith("items_"):
                self._db.drop_table(name)
        self._opened = None
        return int(created.count_rows())

    def manifest(self) -> Mapping[str, Any]:
        """Return the manifest of the last export."""
        return self._open()[1]

    def count(self) -> int:
        """Return the number of items."""
        return int(self._open()[0].count_rows())

    def nearest(self, target: str, vector: NDArray[np.float32], count: int, where: Expression | None) -> list[Row]:
        """Return the items with the smallest cosine distance."""
        table, manifest = self._open()
        column = "v_any" if target == "any" else f"v_{list(manifest['modalities']).index(target)}"
        search = table.search(vector, vector_column_name=column).distance_type("cosine").limit(count)
        condition = f"{column} IS NOT NULL"
        if where is not None:
            condition += f" AND {self._condition(where, manifest)}"
        # Without a filter before the search, fewer items than requested would be left.
        found = search.where(condition, prefilter=True).select([*self._selected(manifest), "_distance"]).to_list()
        return [self._row(each, manifest) for each in found]

    def get(self, key: str) -> Row | None:
        """Return the item with a key."""
        table, manifest = self._open()
        found = table.search().where(f"key = {_quoted(key)}").select(self._selected(manifest)).limit(1).to_list()
        return self._row(found[0], manifest) if found else None

    def _open(self) -> tuple[Any, Mapping[str, Any]]:
        if self._opened is None:
            if _MANIFEST not in self._table_names():
                raise DataError(f"{self._address} has no exported index; write one with `index.export`")
            try:
                text = self._db.open_table(_MANIFEST).to_arrow()["manifest"][0].as_py()
                manifest = json.loads(text)
                self._opened = self._db.open_table(manifest["table"]), manifest
            except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
                raise DataError(f"the index in {self._address} cannot be read ({error}); export it again") from None
        return self._opened

    def _table_names(self) -> list[str]:
        listed = self._db.list_tables() if hasattr(self._db, "list_tables") else self._db.table_names()
        return list(getattr(listed, "tables", listed))

    def _schema(self, modalities: Sequence[str], dim: int, fields: int) -> Any:
        arrow = self._arrow
        vector = arrow.list_(arrow.float32(), dim)
        columns = [
            ("key", arrow.string()),
            ("name", arrow.string()),
            ("label", arrow.string()),
            ("metadata", arrow.string()),
        ]
        columns += [("v_any", vector)]
        columns += [(f"v_{number}", vector) for number in range(len(modalities))]
        columns += [(f"has_{number}", arrow.bool_()) for number in range(len(modalities))]
        for number in range(fields):
            columns += [(f"text_{number}", arrow.string()), (f"number_{number}", arrow.float64())]
        return arrow.schema(columns)

    def _batch(
        self, rows: Sequence[Row], modalities: Sequence[str], dim: int, fields: Sequence[str], schema: Any
    ) -> Any:
        columns: dict[str, list[Any]] = {
            "key": [row.key for row in rows],
            "name": [row.name for row in rows],
            "label": [row.label for row in rows],
            "metadata": [json.dumps(dict(row.metadata)) for row in rows],
            "v_any": [row.any_vector for row in rows],
        }
        for number, modality in enumerate(modalities):
            columns[f"v_{number}"] = [row.vectors.get(modality) for row in rows]
            columns[f"has_{number}"] = [modality in row.vectors for row in rows]
        for number, field in enumerate(fields):
            values = [row.metadata.get(field) for row in rows]
            columns[f"text_{number}"] = [value if isinstance(value, str) else None for value in values]
            columns[f"number_{number}"] = [
                float(value) if value is not None and not isinstance(value, str) else None for value in values
            ]
        arrays = [self._arrow.array(columns[field.name], type=field.type) for field in schema]
        return self._arrow.RecordBatch.from_arrays(arrays, schema=schema)

    @staticmethod
    def _selected(manifest: Mapping[str, Any]) -> list[str]:
        return ["key", "name", "label", "metadata", *(f"v_{number}" for number in range(len(manifest["modalities"])))]

    @staticmethod
    def _row(values: Mapping[str, Any], manifest: Mapping[str, Any]) -> Row:
        vectors = {
            modality: np.asarray(values[f"v_{number}"], np.float32)
            for number, modality in enumerate(manifest["modalities"])
            if values[f"v_{number}"] is not None
        }
        return Row(values["key"], values["name"], values["label"], json.loads(values["metadata"]), vectors)

    def _condition(self, where: Expression, manifest: Mapping[str, Any]) -> str:
        match where:
            case Combination(operator, operands):
                return "(" + f" {operator.upper()} ".join(self._condition(each, manifest) for each in operands) + ")"
            case Not(operand):
                return f"(NOT {self._condition(operand, manifest)})"
            case Presence(name):
                return self._presence(name, manifest)
            case Comparison(name, operator, value):
                column = self._column(name, value, manifest)
                return (
                    "(1 = 0)" if column is None else f"({column} IS NOT NULL AND {column} {operator} {_literal(value)})"
                )
            case Membership(name, values):
                tests = [self._condition(Comparison(name, "=", value), manifest) for value in values[:1]]
                for is_text in (True, False):
                    same = [value for value in values if isinstance(value, str) == is_text]
                    column = self._column(name, same[0], manifest) if same else None
                    if column is not None:
                        listed = ", ".join(map(_literal, same))
                        tests.append(f"({column} IS NOT NULL AND {column} IN ({listed}))")
                return "(" + " OR ".join(tests) + ")"

    @staticmethod
    def _presence(name: str, manifest: Mapping[str, Any]) -> str:
        if name in manifest["modalities"]:
            return f"has_{list(manifest['modalities']).index(name)}"
        if name in _COLUMNS:
            return f"({name} IS NOT NULL)"
        if name not in manifest["fields"]:
            return "(1 = 0)"
        number = list(manifest["fields"]).index(name)
        return f"(text_{number} IS NOT NULL OR number_{number} IS NOT NULL)"

    @staticmethod
    def _column(name: str, value: Value, manifest: Mapping[str, Any]) -> str | None:
        if name in _COLUMNS:
            return name if isinstance(value, str) else None
        if name not in manifest["fields"]:
            return None
        return f"{'text' if isinstance(value, str) else 'number'}_{list(manifest['fields']).index(name)}"


def _literal(value: Value) -> str:
    return _quoted(value) if isinstance(value, str) else repr(float(value))


def _quoted(text: str) -> str:
    if "\0" in text:
        raise ConfigError("a value in a filter contains a null character")
    return "'" + text.replace("'", "''") + "'"
