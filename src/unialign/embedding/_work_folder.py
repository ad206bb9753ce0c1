"""The folder of an unfinished run, beside the store: its plan, its lock and its part files."""

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from unialign.embedding._part_file import Part, read_part
from unialign.embedding._plan import Plan
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.io import (
    LOCK_FILE,
    canonical_json,
    is_leftover,
    lock_folder,
    read_json,
    sync_folder,
    temporary_sibling,
    write_durably,
    write_json,
)

__all__ = ["WorkFolder"]

_PLAN, _OWNER = "plan.json", "owner.json"
# An attempt to lock the folder fails if another process removes the folder.
_ATTEMPTS = 100


class WorkFolder:
    """The path is `.NAME.embed` beside the store NAME."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.embed")

    def part_folder(self, column: str) -> Path:
        return self.path / "parts" / column

    def part_file(self, column: str, number: int) -> Path:
        return self.part_folder(column) / f"{number:08d}.safetensors"

    @property
    def cells_folder(self) -> Path:
        """Folder of the joined parts, which exists while the store is assembled."""
        return self.path / "cells"

    @contextmanager
    def locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for _ in range(_ATTEMPTS):
                self._create()
                try:
                    file = stack.enter_context(self._open_lock())
                    stack.enter_context(lock_folder(self.path, doing="embedding"))
                except ConfigError as error:
                    raise ConfigError(f"{error} ({self._owner()})") from None
                except FileNotFoundError:
                    continue
                # Another process may have finished, and removed the folder between its creation and the lock.
                if self._is_lock(file):
                    break
                stack.pop_all().close()
            else:
                raise ConfigError(
                    f"{self.path} cannot be locked, because other processes keep removing it; choose another "
                    "path for the store, or wait until they end"
                )
            with contextlib.suppress(OSError):
                owner = {"host": socket.gethostname(), "pid": os.getpid()}
                (self.path / _OWNER).unlink(missing_ok=True)
                write_json(self.path / _OWNER, owner)
            yield

    def _open_lock(self) -> BinaryIO:
        try:
            return (self.path / LOCK_FILE).open("ab")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._error("the lock", error) from error

    def _is_lock(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path / LOCK_FILE))
        except FileNotFoundError:
            return False

    @property
    def has_plan(self) -> bool:
        return (self.path / _PLAN).exists()

    def stored_plan(self) -> dict[str, Any] | None:
        return read_json(self.path / _PLAN) if self.has_plan else None

    def write_plan(self, plan: Plan) -> None:
        path = self.path / _PLAN
        partial = temporary_sibling(path, "partial")
        body = plan.to_json()
        with self._errors("the plan"):
            for column in plan.columns:
                self.part_folder(column).mkdir(parents=True, exist_ok=True)
            if self.stored_plan() == json.loads(canonical_json(body)):
                return
            try:
                write_json(partial, body)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            sync_folder(self.path)

    def write_part(self, column: str, number: int, data: bytes) -> None:
        path = self.part_file(column, number)
        partial = temporary_sibling(path, "partial")
        try:
            write_durably(partial, data)
            os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def sync_parts(self, column: str) -> None:
        sync_folder(self.part_folder(column))

    def read_part(self, plan: Plan, column: str, number: int) -> Part | None:
        """Return None if the part is missing, is damaged or belongs to another plan."""
        try:
            return read_part(self.part_file(column, number), plan, column, number)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(
                f"{self.part_file(column, number)} cannot be read: {error.strerror or error}; check the disk, and "
                "repeat the call to continue"
            ) from None

    def discard_part(self, column: str, number: int) -> None:
        with self._errors("the parts"):
            self.part_file(column, number).unlink(missing_ok=True)

    def discard_leftovers(self) -> None:
        """Delete what killed runs left behind; the lock must be held."""
        for folder in [self.path, *(self.path / "parts").glob("*")]:
            for entry in filter(is_leftover, list(folder.iterdir())):
                entry.unlink(missing_ok=True)
        self.discard_cells()
        # The hidden folder of a store whose assembly was killed.
        leftover = re.compile(re.escape(f".{self.target.name}.") + r"[0-9a-f]{12}\.partial")
        for entry in list(self.target.parent.iterdir()):
            if leftover.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)

    def discard_cells(self) -> None:
        shutil.rmtree(self.cells_folder, ignore_errors=True)

    def discard_parts(self) -> None:
        with self._errors("the parts"):
            if (self.path / "parts").exists():
                shutil.rmtree(self.path / "parts")
            (self.path / _PLAN).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; files that cannot be deleted remain, and the next call deletes them."""
        # The plan is removed first, so that a folder that lacks some parts is not mistaken for an unfinished run.
        with contextlib.suppress(OSError):
            (self.path / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _create(self) -> None:
        with self._errors("the folder of the run"):
            self.path.mkdir(parents=True, exist_ok=True)

    def _owner(self) -> str:
        try:
            owner = read_json(self.path / _OWNER)
            return f"process {owner['pid']} on {owner['host']}"
        except (CheckpointError, KeyError):
            return "by an unknown process"

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(what, error) from error

    def _error(self, what: str, error: OSError) -> DataError:
        return DataError(
            f"cannot write {what} in {self.path}: {error.strerror or error}; choose another path for the store, or "
            "make the folder writable"
        )
