"""Find damaged files and inconsistencies of an index."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unialign.index._derived import row_places
from unialign.index._parts import PARTS, check_file
from unialign.index._storage import SPACE, Storage, lost_commits


def problems_of(storage: Storage) -> list[str]:
    """Return a sentence for each damaged file and each inconsistency; reads all files."""
    return list(_problems(storage))


def _problems(storage: Storage) -> Iterator[str]:
    yield from storage.catalog.problems()
    for part in storage.snapshot.parts:
        present_n = storage.catalog.present_bits(part.id)
        for bit, name in enumerate(storage.modalities):
            has_n = np.zeros(part.items, np.bool_)
            if name in part.rows:
                has_n[row_places(part, name)] = True
            if len(present_n) != part.items or (has_n != (present_n >> bit & 1).astype(np.bool_)).any():
                yield f"the rows of {name!r} in the part with number {part.id} do not match the database"
    folder = storage.folder
    if folder is None:
        return
    problem = lost_commits(folder, storage.catalog)
    if problem is not None:
        yield problem
    for directory in storage.catalog.folders():
        for name, (size, sha256) in storage.catalog.files(directory).items():
            problem = check_file(folder / directory, name, size, sha256)
            if problem is not None:
                yield problem
    yield from _unknown_files(folder, storage)


def _unknown_files(folder: Path, storage: Storage) -> Iterator[str]:
    """Yield parts of the catalog without files."""
    for record in storage.catalog.parts(storage.snapshot.generation):
        if not storage.catalog.files(f"{PARTS}/{record.name}"):
            yield f"the part {record.name} has no files in the catalog"
    if storage.catalog.meta("space") is not None and not (folder / SPACE).is_dir():
        yield f"{folder / SPACE} is missing"
