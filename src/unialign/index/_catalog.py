"""The catalog of an index: keys, labels, metadata, generations and places of items, in SQLite.

An item is visible at generation g if it was added at g or before and not removed at g or before, so a reader sees one
generation until it reads the next one.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE commits (generation INTEGER PRIMARY KEY, time REAL NOT NULL, added INTEGER, replaced INTEGER, deleted INTEGER);
CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, items INTEGER NOT NULL, generation INTEGER NOT NULL,
  retired INTEGER);
CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT NOT NULL, name TEXT, part INTEGER NOT NULL, place INTEGER NOT NULL,
  label TEXT, present INTEGER NOT NULL, metadata TEXT, generation INTEGER NOT NULL, removed INTEGER);
CREATE UNIQUE INDEX living_keys ON items (key) WHERE removed IS NULL;
CREATE UNIQUE INDEX item_places ON items (part, place);
CREATE TABLE fields (name TEXT NOT NULL, value NOT NULL, item INTEGER NOT NULL, PRIMARY KEY (name, value, item))
  WITHOUT ROWID;
"""


@dataclass(frozen=True)
class ItemRecord:
    """An item as the catalog describes it."""

    id: int
    key: str
    name: str
    part: int
    place: int
    label: str | None
    present: int
    metadata: Mapping[str, Any]


class Catalog:
    """Connection to the database of an index; a path, or `:memory:`."""

    def __init__(self, path: str = ":memory:") -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)

    def add_items(
        self,
        part: int,
        generation: int,
        keys: Sequence[str],
        present: NDArray[np.int64],
        *,
        names: Sequence[str | None] | None = None,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> None:
        with self._transaction():
            first = self._value("SELECT coalesce(max(id), 0) + 1 FROM items")
            self._db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, NULL)", (part, str(part), len(keys), generation))
            self._db.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    (
                        first + place,
                        key,
                        names[place] if names else None,
                        part,
                        place,
                        labels[place] if labels else None,
                        int(present[place]),
                        json.dumps(metadata[place]) if metadata and metadata[place] else None,
                        generation,
                    )
                    for place, key in enumerate(keys)
                ),
            )
            if metadata:
                self._db.executemany(
                    "INSERT INTO fields VALUES (?, ?, ?)",
                    (
                        (name, value, first + place)
                        for place, fields in enumerate(metadata)
                        for name, value in (fields or {}).items()
                        if value is not None
                    ),
                )
            self._db.execute("INSERT INTO commits VALUES (?, 0, ?, 0, 0)", (generation, len(keys)))

    def at_places(self, places: Iterable[tuple[int, int]]) -> list[ItemRecord]:
        """Return the items at (part, place), in this order."""
        query = f"SELECT {_COLUMNS} FROM items WHERE part = ? AND place = ?"
        return [_record(self._db.execute(query, (part, place)).fetchone()) for part, place in places]

    def find(self, key: str, generation: int) -> ItemRecord | None:
        """Return the item with a key at a generation."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM items WHERE key = ? AND generation <= ? AND (removed IS NULL OR removed > ?)",
            (key, generation, generation),
        ).fetchone()
        return None if row is None else _record(row)

    def select(self, condition: str, parameters: Sequence[Any], generation: int) -> NDArray[np.int64]:
        """Return the (S, 2) parts and places of the visible items that satisfy an SQL condition, by part and place."""
        rows = self._db.execute(
            f"SELECT part, place FROM items WHERE generation <= ? AND (removed IS NULL OR removed > ?) AND ({condition}) "
            "ORDER BY part, place",
            (generation, generation, *parameters),
        ).fetchall()
        return np.array(rows, np.int64).reshape(-1, 2)

    def _value(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        return self._db.execute(query, parameters).fetchone()[0]

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


_COLUMNS = "id, key, name, part, place, label, present, metadata"


def _record(row: tuple[Any, ...]) -> ItemRecord:
    id, key, name, part, place, label, present, metadata = row
    return ItemRecord(id, key, name or key, part, place, label, present, json.loads(metadata) if metadata else {})
