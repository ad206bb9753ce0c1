"""The catalog of an index: keys, labels, metadata, generations and places of items, in SQLite.

An item is visible at generation g if it was added at g or before, and not removed at g or before. A reader therefore
sees one generation until it asks for the next. Metadata and previews belong to a payload, which a compaction does not
copy.
"""

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ConfigError, DataError

SCHEMA = 1
DATABASE = "index.sqlite"

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE commits (generation INTEGER PRIMARY KEY, time REAL NOT NULL, added INTEGER NOT NULL,
  replaced INTEGER NOT NULL, deleted INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, items INTEGER NOT NULL,
  generation INTEGER NOT NULL, retired INTEGER, retired_time REAL, checksum INTEGER NOT NULL);
CREATE TABLE files (folder TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
  PRIMARY KEY (folder, name)) WITHOUT ROWID;
CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT NOT NULL, name TEXT, part INTEGER NOT NULL, place INTEGER NOT NULL,
  label TEXT, present INTEGER NOT NULL, payload INTEGER NOT NULL, metadata TEXT, checksum INTEGER NOT NULL,
  generation INTEGER NOT NULL, removed INTEGER, removed_checksum INTEGER);
CREATE UNIQUE INDEX living_keys ON items (key) WHERE removed IS NULL;
CREATE UNIQUE INDEX item_places ON items (part, place);
CREATE INDEX item_labels ON items (label) WHERE label IS NOT NULL;
CREATE INDEX removed_items ON items (removed, part, place) WHERE removed IS NOT NULL;
CREATE TABLE fields (name TEXT NOT NULL, value NOT NULL, payload INTEGER NOT NULL, PRIMARY KEY (name, value, payload))
  WITHOUT ROWID;
CREATE INDEX payload_fields ON fields (payload);
CREATE TABLE previews (payload INTEGER NOT NULL, modality TEXT NOT NULL, type TEXT NOT NULL, data BLOB NOT NULL,
  checksum INTEGER NOT NULL, PRIMARY KEY (payload, modality)) WITHOUT ROWID;
"""
_COLUMNS = "id, key, name, part, place, label, present, payload, metadata"
_VISIBLE = "generation <= ? AND (removed IS NULL OR removed > ?)"
# Writers wait this many seconds for another transaction.
_TIMEOUT = 10.0
_CHECKPOINT_MS = 200


@dataclass(frozen=True)
class ItemRecord:
    """An item of the catalog.

    Attributes:
        id: number of this version of the item.
        key, name, label, metadata: values given by the user; the name defaults to the key.
        part, place: position of its rows.
        present: bits of the modalities it has, in the order of the index.
        payload: number of its metadata and previews.
    """

    id: int
    key: str
    name: str
    part: int
    place: int
    label: str | None
    present: int
    payload: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class PartRecord:
    """A part of the catalog; `generation` is that of the commit that added it."""

    id: int
    name: str
    items: int
    generation: int


@dataclass
class NewItems:
    """Items of a new part, in the order of their places; optional lists may contain None.

    Attributes:
        payloads: payloads of the items to reuse; None: a new payload with the given metadata and previews.
        previews: for each item, modality -> (content type, content).
    """

    keys: Sequence[str]
    present: NDArray[np.int64]
    names: Sequence[str | None] | None = None
    labels: Sequence[str | None] | None = None
    metadata: Sequence[Mapping[str, Any] | None] | None = None
    previews: Sequence[Mapping[str, tuple[str, bytes]] | None] | None = None
    payloads: Sequence[int | None] | None = None


@dataclass
class Changes:
    """Content of one commit.

    Attributes:
        parts: names and items of the new parts.
        removed: ids of removed items.
        retired: ids of parts that contain no living item after the commit.
        counts: numbers of added, replaced and deleted items.
        meta: names and values to set.
        files: additional files, by folder.
        forgotten: folders whose files are no longer listed.
    """

    parts: Sequence[tuple[str, NewItems]] = ()
    removed: Sequence[int] = ()
    retired: Sequence[int] = ()
    counts: tuple[int, int, int] = (0, 0, 0)
    meta: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, tuple[int, str]]] = field(default_factory=dict)
    forgotten: Sequence[str] = ()


class Catalog:
    """A database of an index, in a file or in memory. Methods may be called from several threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path | None, meta: Mapping[str, Any]) -> "Catalog":
        """Create a database; None: in memory."""
        target = ":memory:" if path is None else str(path)
        made = cls(sqlite3.connect(target, isolation_level=None, check_same_thread=False, timeout=_TIMEOUT))
        made._settings(durable=path is not None)
        with made.transaction():
            for statement in _statements():
                made._db.execute(statement)
            made._set_meta({"schema": SCHEMA, **meta})
            made._add_commit(0, time.time(), (0, 0, 0))
        return made

    @classmethod
    def open(cls, path: Path, *, writable: bool) -> "Catalog":
        """Open a database.

        Raises:
            DataError: the file is not a database of an index, is damaged, or has another schema.
        """
        if path.is_symlink() or not path.is_file():
            raise DataError(
                f"{path.parent} is not an index, since it has no file {path.name}; create it with Index.create"
            )
        try:
            return cls._checked(path, "rw" if writable else "ro")
        except sqlite3.OperationalError as error:
            if writable:
                raise _damaged(path, error) from None
            return cls._open_unchanging(path, error)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _damaged(path, error) from None

    @classmethod
    def _checked(cls, path: Path, mode: str, options: str = "") -> "Catalog":
        found = cls(_connect(path, mode, options))
        try:
            found._settings(durable=mode == "rw")
            found._check_schema(path)
        except BaseException:
            found.close()
            raise
        return found

    @classmethod
    def _open_unchanging(cls, path: Path, error: Exception) -> "Catalog":
        """Open a database in a read-only folder, which cannot hold the shared memory of the write-ahead log."""
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise DataError(
                f"{path} cannot be read ({error}): {log.name} has commits that are not in it, and the folder is not "
                "writable; copy the folder, or open it for writing once"
            )
        try:
            return cls._checked(path, "ro", "&immutable=1")
        except (sqlite3.Error, UnicodeDecodeError) as second:
            raise _damaged(path, second) from None

    def _check_schema(self, path: Path) -> None:
        """Compare the tables with those of this version, since a file could contain triggers or views."""
        found = self._db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        if {_normal(sql) for (sql,) in found} != {_normal(sql) for sql in _statements()}:
            row = self._db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
            schema = "unknown" if row is None else row[0]
            if schema == str(SCHEMA):
                raise DataError(f"{path} does not have the tables of an index; create the index again")
            raise DataError(f"{path} has schema {schema}, but this version reads schema {SCHEMA}; update unialign")
        self.meta("schema")

    def _settings(self, *, durable: bool) -> None:
        if durable:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA trusted_schema = OFF")
        self._db.execute("PRAGMA cell_size_check = ON")
        self._db.execute("PRAGMA case_sensitive_like = ON")

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()

    # --- reading ---

    @contextlib.contextmanager
    def consistent(self) -> Iterator[None]:
        """Read a single state in the block, even if another process commits meanwhile."""
        with self._lock:
            self._one("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def meta(self, name: str, default: Any = None) -> Any:
        """Return a value of the description of the index."""
        row = self._one("SELECT value, checksum FROM meta WHERE name = ?", (name,))
        if row is not None and row[1] != checksum_of(name, row[0]):
            raise DataError(f"the value {name!r} of the index was altered after it was written; restore the index")
        return default if row is None else json.loads(row[0])

    @property
    def generation(self) -> int:
        """Number of the last commit."""
        return int(self._one("SELECT max(generation) FROM commits")[0])

    def parts(self, generation: int) -> list[PartRecord]:
        """Return the parts that a reader of a generation needs."""
        query = (
            "SELECT id, name, items, generation FROM parts WHERE generation <= ? AND (retired IS NULL OR retired > ?) "
            "ORDER BY id"
        )
        return [PartRecord(*row) for row in self._all(query, (generation, generation))]

    def retired_parts(self, before: float) -> list[PartRecord]:
        """Return the parts that were retired before a time."""
        query = "SELECT id, name, items, generation FROM parts WHERE retired IS NOT NULL AND retired_time < ?"
        return [PartRecord(*row) for row in self._all(query, (before,))]

    def part_names(self) -> set[str]:
        """Return the names of all parts, retired ones included."""
        return {row[0] for row in self._all("SELECT name FROM parts")}

    def files(self, folder: str) -> dict[str, tuple[int, str]]:
        """Return name -> (size, sha256) of the files of a folder."""
        return {
            name: (size, sha256)
            for name, size, sha256 in self._all("SELECT name, bytes, sha256 FROM files WHERE folder = ?", (folder,))
        }

    def folders(self) -> list[str]:
        """Return the folders with files."""
        return [row[0] for row in self._all("SELECT DISTINCT folder FROM files ORDER BY folder")]

    def removed_places(self, generation: int, since: int = -1) -> NDArray[np.int64]:
        """Return the (R, 2) parts and places of items that were removed after `since`, up to a generation."""
        # One number per item is faster than a pair: an index with 100,000 deleted items opens in 30 ms.
        query = "SELECT (part << 32) | place FROM items WHERE removed IS NOT NULL AND removed > ? AND removed <= ?"
        packed = np.array([row[0] for row in self._all(query, (since, generation))], np.int64)
        return np.stack([packed >> 32, packed & 0xFFFFFFFF], 1)

    def count(self, generation: int) -> int:
        """Return the number of visible items."""
        return int(self._one(f"SELECT count(*) FROM items WHERE {_VISIBLE}", (generation, generation))[0])

    def label_counts(self, generation: int, most: int = 1000) -> dict[str, int]:
        """Return label -> number of visible items, the most frequent labels first."""
        query = (
            f"SELECT label, count(*) FROM items WHERE label IS NOT NULL AND {_VISIBLE} GROUP BY label "
            "ORDER BY 2 DESC, 1 LIMIT ?"
        )
        return dict(self._all(query, (generation, generation, most)))

    def field_names(self, most: int = 100) -> list[str]:
        """Return the names of metadata fields."""
        # One index lookup per name, instead of a scan of all values.
        query = (
            "WITH RECURSIVE names(name) AS (SELECT min(name) FROM fields UNION ALL "
            "SELECT (SELECT min(name) FROM fields WHERE name > names.name) FROM names WHERE names.name IS NOT NULL) "
            "SELECT name FROM names WHERE name IS NOT NULL LIMIT ?"
        )
        return [row[0] for row in self._all(query, (most,))]

    def at_places(self, places: Iterable[Sequence[int]]) -> list[ItemRecord]:
        """Return the items at (part, place), in this order."""
        query = f"SELECT {_COLUMNS} FROM items WHERE part = ? AND place = ?"
        with self._lock:
            rows = [self._one(query, (int(part), int(place))) for part, place in places]
        if any(row is None for row in rows):
            raise DataError("the database of the index lacks an item whose rows are stored; check it with `verify`")
        return [_record(row) for row in rows]

    def find(self, keys: Iterable[str], generation: int) -> list[ItemRecord | None]:
        """Return the visible items with given keys, in this order."""
        query = f"SELECT {_COLUMNS} FROM items WHERE key = ? AND {_VISIBLE}"
        with self._lock:
            rows = [self._one(query, (key, generation, generation)) for key in keys]
        return [None if row is None else _record(row) for row in rows]

    def similar_keys(self, key: str, generation: int) -> list[str]:
        """Return some visible keys with the same start as a key, for suggestions in messages."""
        query = f"SELECT key FROM items WHERE key >= ? AND key < ? AND {_VISIBLE} ORDER BY key LIMIT 200"
        start = key[:1]
        return [row[0] for row in self._all(query, (start, start + "\U0010ffff", generation, generation))]

    def select(self, condition: str, parameters: Sequence[Any], generation: int) -> NDArray[np.int64]:
        """Return the (S, 2) parts and places of the visible items that satisfy an SQL condition, in this order."""
        # Sorted here, since ORDER BY would make SQLite scan all items in this order instead of using the index of keys.
        query = f"SELECT part, place FROM items WHERE {_VISIBLE} AND {condition}"
        at_S2 = np.array(self._all(query, (generation, generation, *parameters)), np.int64).reshape(-1, 2)
        return at_S2[np.lexsort((at_S2[:, 1], at_S2[:, 0]))]

    def page(
        self, generation: int, *, after: int, limit: int, condition: str = "1", parameters: Sequence[Any] = ()
    ) -> list[ItemRecord]:
        """Return visible items with an id above `after`, by id."""
        query = f"SELECT {_COLUMNS} FROM items WHERE id > ? AND {_VISIBLE} AND {condition} ORDER BY id LIMIT ?"
        return [_record(row) for row in self._all(query, (after, generation, generation, *parameters, limit))]

    def records(self, generation: int) -> Iterator[ItemRecord]:
        """Yield all visible items, by part and place."""
        query = f"SELECT {_COLUMNS} FROM items WHERE {_VISIBLE} ORDER BY part, place"
        for row in self._all(query, (generation, generation)):
            yield _record(row)

    def living(self, part: int, generation: int) -> list[ItemRecord]:
        """Return the visible items of a part, by place."""
        query = f"SELECT {_COLUMNS} FROM items WHERE part = ? AND {_VISIBLE} ORDER BY place"
        return [_record(row) for row in self._all(query, (part, generation, generation))]

    def highest_number(self, generation: int) -> int:
        """Return the highest visible key that is a number, or -1."""
        query = f"SELECT max(CAST(key AS INTEGER)) FROM items WHERE key NOT GLOB '*[^0-9]*' AND {_VISIBLE}"
        found = self._one(query, (generation, generation))[0]
        return -1 if found is None else int(found)

    def preview(self, payload: int, modality: str) -> tuple[str, bytes] | None:
        """Return the content type and content of a preview."""
        row = self._one(
            "SELECT type, data, checksum FROM previews WHERE payload = ? AND modality = ?", (payload, modality)
        )
        if row is None:
            return None
        if row[2] != checksum_of(payload, modality, row[0], row[1]):
            raise DataError(
                f"the preview of {modality!r} was altered after it was written; check the index with `verify`"
            )
        return str(row[0]), bytes(row[1])

    def preview_modalities(self, payload: int) -> list[str]:
        """Return the modalities with a stored preview."""
        return [row[0] for row in self._all("SELECT modality FROM previews WHERE payload = ? ORDER BY 1", (payload,))]

    def undamaged(self) -> tuple[list[ItemRecord], list[str]]:
        """Return the items of the last commit with valid checksums, by part and place, and a list of problems.

        A damaged page ends a scan, so the items are read from both ends.
        """
        found: dict[int, ItemRecord] = {}
        problems: list[str] = []
        for order in ("ASC", "DESC"):
            try:
                for *values, checksum, generation, removed, removed_checksum in self._each(
                    f"SELECT * FROM items NOT INDEXED ORDER BY id {order}"
                ):
                    expected = None if removed is None else checksum_of(removed, values[0])
                    if checksum != checksum_of(*values, generation) or removed_checksum != expected:
                        problems.append(f"the item {str(values[1])[:100]!r} was altered after it was written")
                    elif removed is None:
                        found[values[0]] = _record(tuple(values))
            except (DataError, TypeError, ValueError) as error:
                problems.append(str(error))
                continue
            break
        by_key = {record.key: record for record in found.values()}
        records = sorted(by_key.values(), key=lambda record: (record.part, record.place))
        return records, list(dict.fromkeys(problems))

    def present_bits(self, part: int) -> NDArray[np.int64]:
        """Return the (n,) bits of the modalities of all items of a part, by place."""
        return np.array(
            [row[0] for row in self._all("SELECT present FROM items WHERE part = ? ORDER BY place", (part,))]
        )

    def names_of_parts(self) -> dict[int, str]:
        """Return number -> name of all parts."""
        return dict(self._all("SELECT id, name FROM parts ORDER BY id"))

    # --- writing ---

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit on success, roll back on an exception."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise ConfigError(f"the index cannot be written ({error}); close the other writer") from None
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def commit(self, changes: Changes) -> int:
        """Apply changes in one transaction, and return the generation."""
        try:
            with self.transaction():
                generation = self.generation + 1
                now = time.time()
                self._db.executemany(
                    "UPDATE items SET removed = ?, removed_checksum = ? WHERE id = ?",
                    ((generation, checksum_of(generation, each), each) for each in changes.removed),
                )
                for each in changes.retired:
                    self._retire(each, generation, now)
                for name, items in changes.parts:
                    self._add_part(name, items, generation)
                for folder in changes.forgotten:
                    self._db.execute("DELETE FROM files WHERE folder = ?", (folder,))
                for folder, files in changes.files.items():
                    self._db.executemany(
                        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                        ((folder, name, size, sha256) for name, (size, sha256) in files.items()),
                    )
                self._set_meta(changes.meta)
                self._add_commit(generation, now, changes.counts)
        except sqlite3.Error as error:
            raise DataError(f"the index cannot be written ({error}); nothing was changed") from error
        return generation

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, if no reader blocks it.

        A damaged log ends at the damage without an error, whereas the rows of the database have checksums.
        """
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._db.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_MS}")
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {int(1000 * _TIMEOUT)}")

    def purge(self, parts: Sequence[PartRecord]) -> None:
        """Delete the records of retired parts, and payloads that no item uses."""
        with self.transaction():
            retired = [
                self._one("SELECT coalesce(retired, 0) FROM parts WHERE id = ?", (part.id,))[0] for part in parts
            ]
            # Readers of earlier generations need what is deleted here.
            self._set_meta({"purged": max([self.meta("purged", 0), *retired])})
            for part in parts:
                self._db.execute("DELETE FROM items WHERE part = ?", (part.id,))
                self._db.execute("DELETE FROM parts WHERE id = ?", (part.id,))
                # Folder names end with the name of the part, including those of its derived numbers.
                self._db.execute(
                    "DELETE FROM files WHERE folder = ? OR (folder LIKE 'derived/%' AND folder LIKE ?)",
                    (f"parts/{part.name}", f"%-{part.name}"),
                )
            for table in ("fields", "previews"):
                self._db.execute(f"DELETE FROM {table} WHERE payload NOT IN (SELECT payload FROM items)")

    def _add_part(self, name: str, items: NewItems, generation: int) -> None:
        part = int(self.meta("next_part", 1))
        first = int(self._one("SELECT coalesce(max(id), 0) + 1 FROM items")[0])
        # Numbers of parts and payloads are never reused, since readers of earlier generations may still use them.
        payload = int(self.meta("next_payload", 1))
        count = len(items.keys)
        described = (part, name, count, generation, None, None)
        self._db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", (*described, checksum_of(*described)))
        payloads = [
            payload + place if items.payloads is None or items.payloads[place] is None else items.payloads[place]
            for place in range(count)
        ]
        self._set_meta({"next_part": part + 1, "next_payload": payload + count})

        def rows() -> Iterator[tuple[Any, ...]]:
            for place, key in enumerate(items.keys):
                given = items.metadata[place] if items.metadata else None
                values = (
                    key,
                    items.names[place] if items.names else None,
                    part,
                    place,
                    items.labels[place] if items.labels else None,
                    int(items.present[place]),
                    payloads[place],
                    json.dumps(given, ensure_ascii=False, sort_keys=True, allow_nan=False) if given else None,
                )
                yield first + place, *values, checksum_of(first + place, *values, generation), generation

        self._db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)", rows())
        new = [place for place in range(count) if items.payloads is None or items.payloads[place] is None]
        if items.metadata:
            self._db.executemany(
                "INSERT INTO fields VALUES (?, ?, ?)",
                (
                    (field_name, int(value) if isinstance(value, bool) else value, payloads[place])
                    for place in new
                    for field_name, value in (items.metadata[place] or {}).items()
                    if value is not None
                ),
            )
        if items.previews:
            self._db.executemany(
                "INSERT INTO previews VALUES (?, ?, ?, ?, ?)",
                (
                    (payloads[place], modality, kind, data, checksum_of(payloads[place], modality, kind, data))
                    for place in new
                    for modality, (kind, data) in (items.previews[place] or {}).items()
                ),
            )

    def _retire(self, part: int, generation: int, now: float) -> None:
        row = self._one("SELECT id, name, items, generation FROM parts WHERE id = ?", (part,))
        described = (*row, generation, now)
        self._db.execute(
            "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", (*described, checksum_of(*described))
        )

    def _add_commit(self, generation: int, now: float, counts: tuple[int, int, int]) -> None:
        described = (generation, now, *counts)
        self._db.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)", (*described, checksum_of(*described)))

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)",
            ((name, text, checksum_of(name, text)) for name, text in ((n, json.dumps(v)) for n, v in meta.items())),
        )

    # --- checks ---

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each inconsistency of the database."""
        try:
            for (text,) in self._all("PRAGMA integrity_check(20)"):
                if text != "ok":
                    yield f"the database is damaged: {text}"
            for table in ("meta", "commits", "parts"):
                for *values, checksum in self._all(f"SELECT * FROM {table}"):
                    if checksum != checksum_of(*values):
                        yield f"the row {values[0]!r} of the table {table} was altered after it was written"
            yield from self._item_problems()
            for payload, modality, kind, data, checksum in self._all("SELECT * FROM previews"):
                if checksum != checksum_of(payload, modality, kind, data):
                    yield f"the preview of {modality!r} with number {payload} was altered after it was written"
            yield from self._field_problems()
        except (DataError, sqlite3.Error, TypeError, ValueError, OverflowError) as error:
            yield f"the database is damaged: {error}"

    def _item_problems(self) -> Iterator[str]:
        counts: dict[int, int] = {}
        for *values, checksum, generation, removed, removed_checksum in self._each("SELECT * FROM items"):
            id, key, part = values[0], values[1], values[3]
            expected = None if removed is None else checksum_of(removed, id)
            if checksum != checksum_of(*values, generation) or removed_checksum != expected:
                yield f"the item {key!r} was altered after it was written"
            counts[part] = counts.get(part, 0) + 1
        for part, name, items in self._all("SELECT id, name, items FROM parts"):
            if counts.pop(part, 0) != items:
                yield f"the part {name} has {items} items, but the database lists another number"
        if counts:
            yield f"the database lists items of unknown parts: {', '.join(map(str, sorted(counts)[:5]))}"
        generations = [row[0] for row in self._all("SELECT generation FROM commits ORDER BY generation")]
        if generations != list(range(len(generations))):
            yield "the list of commits has gaps"

    def _field_problems(self) -> Iterator[str]:
        stored: dict[int, dict[str, Any]] = {}
        for name, value, payload in self._all("SELECT name, value, payload FROM fields"):
            stored.setdefault(payload, {})[name] = value
        for key, payload, metadata in self._all("SELECT key, payload, metadata FROM items WHERE removed IS NULL"):
            given = json.loads(metadata) if metadata else {}
            expected = {name: value for name, value in given.items() if value is not None}
            if expected != stored.get(payload, {}):
                yield f"the metadata of {key!r} differ from its fields in filters"

    def _one(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        with self._lock, _readable():
            return self._db.execute(query, parameters).fetchone()

    def _all(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _readable():
            return self._db.execute(query, parameters).fetchall()

    def _each(self, query: str) -> Iterator[Any]:
        """Yield rows without loading all of them; the database must not be changed meanwhile."""
        with self._lock, _readable():
            yield from self._db.execute(query)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise ConfigError(f"the index cannot be read ({error}); open it again if it was closed") from None
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise DataError(f"the database of the index cannot be read ({error}); check it with `verify`") from error


def _statements() -> list[str]:
    return [statement.strip() for statement in _TABLES.split(";") if statement.strip()]


def _normal(sql: str) -> str:
    return " ".join(sql.split())


def checksum_of(*values: Any) -> int:
    """Return 63 bits of a checksum of texts, integers, bytes and None."""
    hasher = hashlib.blake2b(digest_size=8)
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        hasher.update(f"{type(value).__name__}{len(data)}:".encode())
        hasher.update(data)
    return int.from_bytes(hasher.digest(), "big") >> 1


def _connect(path: Path, mode: str, options: str = "") -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?mode={mode}{options}"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_TIMEOUT)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}); restore the index, or add its items to a new one")


def _record(row: tuple[Any, ...]) -> ItemRecord:
    id, key, name, part, place, label, present, payload, metadata = row
    try:
        fields = json.loads(metadata) if metadata else {}
    except ValueError as error:
        raise DataError(f"the metadata of {key!r} cannot be read ({error}); check the index with `verify`") from None
    return ItemRecord(id, key, name or key, part, place, label, present, payload, fields)
