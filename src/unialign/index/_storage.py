"""The state of an index: a catalog and parts, in memory or in a folder.

A commit writes new folders aside, syncs them to disk, renames them, and then commits the transaction of the catalog.
After a crash, folders that no transaction refers to are deleted when the index is opened for writing.
"""

import contextlib
import json
import re
import shutil
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unialign._checks import unsafe_name
from unialign.errors import ConfigError, DataError
from unialign.index._alive import LazyMasks, updated_masks
from unialign.index._approximate import Approximate
from unialign.index._calibration import Calibration, load_calibration, save_calibration, uncorrected
from unialign.index._catalog import DATABASE, Catalog, Changes, NewItems, checksum_of
from unialign.index._changes import Block, to_items, to_part
from unialign.index._derived import derive
from unialign.index._parts import (
    PARTS,
    Files,
    check_part_name,
    part_name,
    read_derived,
    read_part,
    write_derived,
    write_part,
)
from unialign.index._snapshot import Derived, Part, Snapshot
from unialign.io import (
    atomic_directory,
    checked_path,
    digest,
    discard_leftovers,
    file_chunks,
    lock_folder,
    open_regular,
    replace_file,
)

# Generation of the last commit, to detect that the database lost it.
COMMITTED = "committed.json"
CALIBRATIONS, DERIVED, SPACE, APPROXIMATE, MAPS = "calibrations", "derived", "space", "approximate", "maps"
# Retired parts are kept for readers of earlier generations for this many seconds.
_GRACE = 600.0

Mode = Literal["r", "w"]


class Storage:
    """Catalog, parts and calibration of an index.

    Attributes:
        folder: folder of the index; None: in memory.
        catalog: the catalog.
        modalities, dim: modalities of the index, and dimension of the rows.
        snapshot: the generation that is shown.
        calibration: the correction of the generation that is shown.
    """

    def __init__(self, catalog: Catalog, folder: Path | None, *, writable: bool) -> None:
        self.catalog, self.folder, self.writable = catalog, folder, writable
        if catalog.meta("modalities") is None or catalog.meta("dim") is None:
            raise DataError("the database of the index does not describe its modalities; restore the index")
        self.modalities = tuple(catalog.meta("modalities"))
        self.dim = int(catalog.meta("dim"))
        for name in self.modalities:
            if unsafe_name(name) is not None:
                raise DataError(f"the index has a modality {name!r}: {unsafe_name(name)}")
        self._resources = ExitStack()
        self._lock = threading.RLock()
        self._derived: dict[tuple[str, int], Derived] = {}
        # Parts of an index in memory, which has no files.
        self._memory: dict[int, Part] = {}
        self.snapshot = Snapshot(-1, self.modalities, self.dim, ())
        self.calibration_id = ""
        self.calibration = uncorrected(
            self.modalities,
            "not calibrated: an index of 500 items or more is calibrated automatically, a smaller one by `calibrate`",
        )
        self._memory_calibration = self.calibration
        self._approximate: dict[str, Approximate | None] = {}
        self.refresh()

    # --- life cycle ---

    @classmethod
    def in_memory(cls, modalities: tuple[str, ...], dim: int) -> "Storage":
        """Create an empty index without a folder."""
        return cls(Catalog.create(None, {"modalities": modalities, "dim": dim}), None, writable=True)

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any], fill: Any = None) -> None:
        """Create the folder of an empty index; `fill` writes further files into the folder before it is renamed.

        Raises:
            ConfigError: the folder exists and is not empty.
            DataError: it cannot be written.
        """
        folder = checked_path(folder, "the folder of the index", error=ConfigError)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} exists; open it with Index.open, or choose another folder")
        try:
            with atomic_directory(folder) as partial:
                (partial / PARTS).mkdir()
                for name in (CALIBRATIONS, DERIVED):
                    (partial / name).mkdir()
                if fill is not None:
                    fill(partial)
                Catalog.create(partial / DATABASE, meta).close()
        except OSError as error:
            raise DataError(f"cannot create the index {folder}: {error.strerror or error}") from error

    @classmethod
    def open(cls, folder: Path, mode: Mode) -> "Storage":
        """Open an index; one process can open it for writing.

        Raises:
            DataError: the folder is not an index, or damaged.
            ConfigError: another process has opened it for writing.
        """
        folder = checked_path(folder, "the folder of the index", error=ConfigError)
        if not (folder / DATABASE).exists():
            raise DataError(f"{folder} is not an index, since it has no file {DATABASE}; create it with Index.create")
        with ExitStack() as stack:
            if mode == "w":
                try:
                    stack.enter_context(lock_folder(folder, doing="writing the index"))
                except OSError as error:
                    raise DataError(f"{folder} cannot be written ({error.strerror}); open it with mode='r'") from None
            catalog = Catalog.open(folder / DATABASE, writable=mode == "w")
            stack.callback(catalog.close)
            problem = lost_commits(folder, catalog)
            if problem is not None:
                raise DataError(problem)
            found = cls(catalog, folder, writable=mode == "w")
            found._resources = stack.pop_all()
        if mode == "w":
            found.clean()
        return found

    def close(self) -> None:
        """Release the lock and the files."""
        self._resources.close()
        self.catalog.close()
        self._derived.clear()

    # --- reading ---

    def refresh(self) -> bool:
        """Show the last generation, and return whether it changed."""
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
        try:
            with self.catalog.consistent():
                return self._show_last()
        except DataError:
            # Another process may have replaced the calibration, and deleted the files of the previous one.
            if self.writable:
                raise
            with self.catalog.consistent():
                return self._show_last()

    def _show_last(self) -> bool:
        generation = self.catalog.generation
        if generation == self.snapshot.generation:
            return False
        known = {part.id: part for part in self.snapshot.parts}
        records = self.catalog.parts(generation)
        parts = tuple(known.get(record.id) or self._part(record.id, record.name, record.items) for record in records)
        previous = self.snapshot.alive
        alive: Mapping[int, NDArray[np.bool_]]
        if isinstance(previous, LazyMasks) and previous.is_loaded:
            gone_R2 = self.catalog.removed_places(generation, self.snapshot.generation)
            masks = updated_masks(previous, parts, gone_R2)
            alive = LazyMasks(lambda: masks)
            len(alive)
        else:
            alive = LazyMasks(lambda: updated_masks({}, parts, self.catalog.removed_places(generation)))
        self._load_calibration()
        if self.folder is not None:
            self._approximate = {}
        self.snapshot = Snapshot(generation, self.modalities, self.dim, parts, alive)
        self._names = {record.id: record.name for record in records}
        kept = {(self.calibration_id, part.id) for part in parts}
        self._derived = {key: value for key, value in self._derived.items() if key in kept}
        return True

    def derived(self) -> dict[int, Derived]:
        """Return part -> numbers for the calibration; missing or damaged files are computed again."""
        return {part.id: self._derived_of(part) for part in self.snapshot.parts}

    def view(self) -> tuple[Snapshot, Calibration, dict[int, Derived]]:
        """Return the data of a search, all from one generation even if another thread refreshes the index.

        Raises:
            DataError: another process has deleted files of the generation that is shown.
        """
        self.check_current()
        with self._lock:
            return self.snapshot, self.calibration, self.derived()

    def check_current(self) -> None:
        """Raise DataError if another process has deleted items of the generation that is shown."""
        if self.writable or self.folder is None:
            return
        purged = int(self.catalog.meta("purged", 0))
        if purged > self.snapshot.generation:
            raise DataError(
                f"the index shows generation {self.snapshot.generation}, of which another process has deleted files "
                "since; call `refresh`"
            )

    def living(self) -> int:
        """Return the number of items."""
        dead = sum(int((~mask).sum()) for mask in self.snapshot.alive.values())
        return sum(part.items for part in self.snapshot.parts) - dead

    def approximate(self, target: str) -> Approximate | None:
        """Return the approximate index of a target for the calibration that is shown; None if there is none.

        A missing or damaged file is reported by a warning.
        """
        if target not in self._approximate:
            self._approximate[target] = self._load_approximate(target)
        found = self._approximate[target]
        return found if found is not None and found.info.calibration == self.calibration_id else None

    def set_approximate(self, target: str, built: Approximate) -> None:
        """Store an approximate index and use it."""
        self.check_writable()
        if self.folder is not None:
            name = built.save(self.folder / APPROXIMATE)
            known = dict(self.catalog.meta("approximate", {})) | {target: name}
            self._committed(Changes(meta={"approximate": known}))
            for path in (self.folder / APPROXIMATE).iterdir():
                if path.stem not in known.values():
                    path.unlink(missing_ok=True)
        self._approximate[target] = built
        self.refresh()

    def _load_approximate(self, target: str) -> Approximate | None:
        name = dict(self.catalog.meta("approximate", {})).get(target)
        if self.folder is None or name is None or not re.fullmatch("[0-9a-f]{16}", str(name)):
            return None
        try:
            return Approximate.load(self.folder / APPROXIMATE, name)
        except DataError as error:
            warnings.warn(str(error), stacklevel=5)
            return None

    def _part(self, number: int, name: str, items: int) -> Part:
        if self.folder is None:
            return self._memory[number]
        check_part_name(name)
        files = self.catalog.files(f"{PARTS}/{name}")
        return read_part(self.folder / PARTS / name, number, items, files, self.modalities, self.dim)

    def _derived_of(self, part: Part) -> Derived:
        key = (self.calibration_id, part.id)
        if key not in self._derived:
            self._derived[key] = self._stored_derived(part) or derive(part, self.calibration)
        return self._derived[key]

    def _stored_derived(self, part: Part) -> Derived | None:
        if self.folder is None or not self.calibration_id:
            return None
        name = f"{DERIVED}/{self.calibration_id}-{self._names[part.id]}"
        files = self.catalog.files(name)
        try:
            has_local = bool(self.calibration.reference)
            return read_derived(self.folder / name, files, part, len(self.modalities), has_local=has_local)
        except DataError as error:
            warnings.warn(f"{error}; the numbers of this part are computed again", stacklevel=4)
            return None

    def _load_calibration(self) -> None:
        identity = str(self.catalog.meta("calibration", ""))
        if identity == self.calibration_id:
            return
        if self.folder is None:
            self.calibration = self._memory_calibration
        elif identity:
            if not re.fullmatch(r"\d{8,}", identity):
                raise DataError(f"the index has an invalid calibration id {identity[:100]!r}; restore the index")
            try:
                self.calibration = load_calibration(self.folder / CALIBRATIONS / identity)
            except DataError as error:
                if not self.writable:
                    raise
                # Open the index anyway, so that it can be calibrated again.
                warnings.warn(f"{error}; until then, searches are not corrected", stacklevel=6)
                self.calibration = uncorrected(self.modalities, "the calibration is damaged")
        self.calibration_id = identity

    # --- writing ---

    def check_writable(self) -> None:
        """Raise ConfigError unless the index can be changed."""
        if not self.writable:
            raise ConfigError("the index is open for reading; open it with mode='w' to change it")

    def commit(
        self,
        blocks: Iterable[Block],
        *,
        removed: Sequence[int] = (),
        retired: Sequence[int] = (),
        counts: tuple[int, int, int] = (0, 0, 0),
        meta: Mapping[str, Any] | None = None,
    ) -> int:
        """Add blocks as parts and remove items in one transaction, and show the new generation."""
        self.check_writable()
        first = int(self.catalog.meta("next_part", 1))
        files: dict[str, Files] = {}
        parts: list[tuple[str, NewItems]] = []
        memory: list[Part] = []
        try:
            for number, block in enumerate(blocks):
                part = to_part(block, first + number, self.modalities)
                name = part_name(self.snapshot.generation + 1)
                parts.append((name, to_items(block, self.modalities)))
                if self.folder is None:
                    memory.append(part)
                    continue
                files[f"{PARTS}/{name}"] = write_part(self.folder / PARTS / name, part)
                if self.calibration_id:
                    target = f"{DERIVED}/{self.calibration_id}-{name}"
                    files[target] = write_derived(self.folder / target, derive(part, self.calibration))
            changes = Changes(parts, removed, retired, counts, meta or {}, files)
            generation = self._committed(changes)
        except BaseException:
            self._discard(files)
            raise
        if self.folder is None:
            self._memory |= {part.id: part for part in memory}
            for each in retired:  # There are no readers of earlier generations.
                self._memory.pop(each, None)
        self.refresh()
        return generation

    def _committed(self, changes: Changes) -> int:
        """Commit the transaction, and record its generation outside the database."""
        generation = self.catalog.commit(changes)
        if self.folder is not None:
            self.catalog.checkpoint()
            record = {"generation": generation, "checksum": checksum_of(generation)}
            try:
                replace_file(self.folder / COMMITTED, json.dumps(record), error=DataError)
            except DataError as error:
                warnings.warn(
                    f"{error}; the change is complete, but its later loss would not be detected", stacklevel=4
                )
        return generation

    def set_calibration(self, calibration: Calibration, sample: Mapping[str, Any] | None = None) -> int:
        """Store a calibration and the numbers of all parts, and show the new generation.

        `sample` describes the items of the fit, as a JSON object; without it, later commits do not fit it again.
        """
        self.check_writable()
        identity = f"{self.snapshot.generation + 1:08d}"
        files: dict[str, Files] = {}
        try:
            if self.folder is not None:
                files = self._write_calibration(calibration, self.folder, identity)
            outdated = [
                folder
                for folder in self.catalog.folders()
                if folder.startswith((f"{CALIBRATIONS}/", f"{DERIVED}/")) and folder not in files
            ]
            changes = Changes(
                meta={"calibration": identity, "calibration_sample": dict(sample or {"method": "given"})},
                files=files,
                forgotten=outdated,
            )
            generation = self._committed(changes)
        except BaseException:
            self._discard([*files, f"{CALIBRATIONS}/{identity}"])
            raise
        self._memory_calibration = calibration
        self.refresh()
        return generation

    def _write_calibration(self, calibration: Calibration, folder: Path, identity: str) -> dict[str, Files]:
        target = folder / CALIBRATIONS / identity
        shutil.rmtree(target, ignore_errors=True)
        try:
            with atomic_directory(target) as partial:
                save_calibration(calibration, partial)
            files = {f"{CALIBRATIONS}/{identity}": _listed(target)}
        except OSError as error:
            raise DataError(f"cannot write {target} ({error.strerror or error}); the index is unchanged") from error
        try:
            for part in self.snapshot.parts:
                name = f"{DERIVED}/{identity}-{self._names[part.id]}"
                shutil.rmtree(folder / name, ignore_errors=True)
                files[name] = write_derived(folder / name, derive(part, calibration))
        except BaseException:
            self._discard(files)
            raise
        return files

    def _discard(self, folders: Iterable[str]) -> None:
        """Delete folders of a failed commit, unless the transaction was committed despite the error."""
        if self.folder is None:
            return
        with contextlib.suppress(DataError, ConfigError):
            known = {*self.catalog.folders(), *(f"{PARTS}/{name}" for name in self.catalog.part_names())}
            for name in set(folders) - known:
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def clean(self) -> None:
        """Delete folders that no transaction refers to, and parts that were retired long ago."""
        if self.folder is None:
            return
        old = self.catalog.retired_parts(time.time() - _GRACE)
        if old:
            self.catalog.purge(old)
        known = {*self.catalog.folders(), *(f"{PARTS}/{name}" for name in self.catalog.part_names())}
        for parent in (PARTS, CALIBRATIONS, DERIVED):
            directory = self.folder / parent
            if not directory.is_dir():
                continue
            discard_leftovers(directory)
            for entry in directory.iterdir():
                if f"{parent}/{entry.name}" not in known and entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)


def _listed(folder: Path) -> Files:
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open_regular(path) as file:
                found[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest(file_chunks(file)))
    return found


def place_mask(snapshot: Snapshot, part: Part) -> NDArray[np.bool_]:
    """Return the (n,) mask of the living items of a part."""
    mask = snapshot.alive.get(part.id)
    return np.ones(part.items, np.bool_) if mask is None else mask


def lost_commits(folder: Path, catalog: Catalog) -> str | None:
    """Return a sentence if the database lacks commits that were acknowledged, or None.

    SQLite reads a damaged write-ahead log up to the damage, without an error.
    """
    path = folder / COMMITTED
    try:
        record = json.loads(path.read_bytes())
        generation = int(record["generation"])
        if record["checksum"] != checksum_of(generation):
            return f"{path} was altered after it was written"
    except FileNotFoundError:
        return f"{path} is missing" if catalog.generation else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{path} cannot be read ({error})"
    if catalog.generation >= generation:
        return None
    return (
        f"the database of {folder} has generation {catalog.generation}, but generation {generation} was written: its "
        "write-ahead log was damaged or removed; restore the folder, or copy what is left with `salvage`"
    )
