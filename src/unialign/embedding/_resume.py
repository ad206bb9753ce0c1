"""Find the finished parts of an unfinished run, and files that have changed since they were read."""

import os
from collections.abc import Iterator
from pathlib import Path

from unialign._plain_text import count
from unialign.embedding._part_file import Marks, Part
from unialign.embedding._plan import Plan
from unialign.embedding._work_folder import WorkFolder
from unialign.errors import DataError

__all__ = ["ChangedFiles", "finished_parts"]

_SHOWN = 5


def finished_parts(plan: Plan, folder: WorkFolder) -> Iterator[tuple[str, int, Part]]:
    """Yield the finished parts; damaged parts and parts of another plan are deleted."""
    for column in plan.columns:
        if not folder.part_folder(column).is_dir():
            continue
        for number in range(plan.parts(column)):
            part = folder.read_part(plan, column, number)
            if part is not None:
                yield column, number, part
            elif folder.part_file(column, number).exists():
                folder.discard_part(column, number)


class ChangedFiles:
    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = roots
        self._marks: dict[str, tuple[int, int] | None] = {}
        self.found: list[str] = []

    def in_part(self, marks: Marks) -> bool:
        changed = [file for file, mark in marks.items() if self._mark(file) != mark]
        self.found += [file.partition("/")[2] for file in changed]
        return bool(changed)

    def error(self) -> DataError:
        names = list(dict.fromkeys(self.found))
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        return DataError(
            f"{count(len(names), 'file differs', 'files differ')} from those that were encoded: {shown}; restore them, "
            "pass allow_changed=True (--allow-changed) to encode them again, or choose another path (--out)"
        )

    def _mark(self, file: str) -> tuple[int, int] | None:
        if file not in self._marks:
            root, _, path = file.partition("/")
            try:
                status = os.stat(self._roots[int(root)] / path)
                self._marks[file] = (status.st_size, status.st_mtime_ns)
            except OSError:
                self._marks[file] = None
        return self._marks[file]
