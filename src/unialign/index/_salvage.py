"""Copy the undamaged items of an index.

Shapes: `n` items of a part, `m` rows of a modality, `D` dimension.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from unialign.errors import ConfigError, DataError, UniAlignError
from unialign.index._catalog import DATABASE, Catalog, ItemRecord
from unialign.index._changes import MOST_ITEMS, Block
from unialign.index._parts import PARTS, Files, check_file, check_part_name, map_array
from unialign.index._previews import Preview
from unialign.index._storage import SPACE, Storage
from unialign.space import Space, space_fingerprint


class Salvaged(NamedTuple):
    """Result of `Index.salvage`.

    Attributes:
        items: number of copied items.
        lost: keys of items without any undamaged row.
        incomplete: keys of items that lost some of their rows.
        problems: a sentence for each damaged file, and for a damaged database.
    """

    items: int
    lost: list[str]
    incomplete: list[str]
    problems: list[str]


def salvage(folder: Path, out: Path) -> Salvaged:
    """Copy all items whose description is undamaged, with the rows that are in undamaged files, to a new index.

    Raises:
        DataError: the description of the index itself is damaged.
        ConfigError: the output folder exists.
    """
    catalog = Catalog.open(folder / DATABASE, writable=False)
    try:
        modalities, dim, space = tuple(catalog.meta("modalities")), int(catalog.meta("dim")), catalog.meta("space")
        found = Salvaged(0, [], [], [])
        loaded = _space(folder / SPACE, space, found)
        fingerprint = None if loaded is None else space
        meta = {"modalities": modalities, "dim": dim, "space": fingerprint}
        Storage.create(out, meta, None if loaded is None else lambda partial: loaded.save_pretrained(partial / SPACE))
        target = Storage.open(out, "w")
        try:
            records, problems = catalog.undamaged()
            found.problems.extend(problems)
            by_part: dict[int, list[ItemRecord]] = {}
            for record in records:
                by_part.setdefault(record.part, []).append(record)
            for number, name in catalog.names_of_parts().items():
                for start in range(0, len(by_part.get(number, ())), MOST_ITEMS):
                    chosen = by_part[number][start : start + MOST_ITEMS]
                    block = _block(catalog, folder, name, chosen, modalities, dim, found)
                    if block.keys:
                        target.commit([block], counts=(len(block.keys), 0, 0))
            return found._replace(items=target.living())
        finally:
            target.close()
    finally:
        catalog.close()


def _space(folder: Path, known: str | None, found: Salvaged) -> Space | None:
    if known is None:
        return None
    try:
        space = Space.from_pretrained(folder)
    except (UniAlignError, OSError) as error:
        found.problems.append(f"the space is damaged, and the copy has none: {error}")
        return None
    if space_fingerprint(space) != known:
        found.problems.append(f"{folder} is not the space of the index, and the copy has none")
        return None
    return space


def _block(
    catalog: Catalog,
    folder: Path,
    part: str,
    records: list[ItemRecord],
    modalities: tuple[str, ...],
    dim: int,
    found: Salvaged,
) -> Block:
    check_part_name(part)
    path = folder / PARTS / part
    files = catalog.files(f"{PARTS}/{part}")
    place_n = np.array([record.place for record in records], np.int64)
    present_n = np.array([record.present for record in records], np.int64)
    rows = {name: np.zeros((len(records), dim), np.float32) for name in modalities}
    present = {name: np.zeros(len(records), np.bool_) for name in modalities}
    for bit, name in enumerate(modalities):
        has_n = (present_n >> bit & 1).astype(np.bool_)
        if has_n.any():
            try:
                rows_mD, row_n = _rows(path, files, name, dim, place_n[has_n])
            except DataError as error:
                found.problems.append(str(error))
                continue
            rows[name][has_n] = rows_mD[row_n]
            present[name] = has_n
    left_n = sum((present[name].astype(np.int64) << bit for bit, name in enumerate(modalities)), np.zeros_like(place_n))
    for record, left, was in zip(records, left_n.tolist(), present_n.tolist(), strict=True):
        if left != was:
            (found.incomplete if left else found.lost).append(record.key)
    block = Block(
        [record.key for record in records],
        rows,
        present,
        [None if record.name == record.key else record.name for record in records],
        [record.label for record in records],
        [record.metadata or None for record in records],
        [_previews(catalog, record, found) for record in records],
    )
    return block.take(np.flatnonzero(left_n))


def _rows(path: Path, files: Files, name: str, dim: int, place_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a modality, and the row numbers of items at places that have it."""
    names = [f"z.{name}.npy", *(each for each in (f"rows.{name}.npy",) if each in files)]
    for each in names:
        problem = check_file(path, each, *files[each]) if each in files else f"{path / each} is not in the catalog"
        if problem is not None:
            raise DataError(problem)
    rows_mD = map_array(path, names[0], files, np.float32, (None, dim))
    if len(names) == 1:
        row_n = place_n
    else:
        places_m = map_array(path, names[1], files, np.int32, (len(rows_mD),))
        row_n = np.searchsorted(places_m, place_n)
        if (row_n >= len(places_m)).any() or (places_m[row_n] != place_n).any():
            raise DataError(f"{path / names[1]} does not match the database")
    if len(row_n) and row_n.max() >= len(rows_mD):
        raise DataError(f"{path / names[0]} does not match the database")
    return rows_mD, row_n


def _previews(catalog: Catalog, record: ItemRecord, found: Salvaged) -> dict[str, Preview]:
    previews: dict[str, Preview] = {}
    try:
        for name in catalog.preview_modalities(record.payload):
            preview = catalog.preview(record.payload, name)
            if preview is not None:
                previews[name] = preview
    except (DataError, ConfigError) as error:
        found.problems.append(f"a preview of {record.key!r} is lost: {error}")
    return previews
