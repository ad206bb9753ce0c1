"""Collect the records of a reader into a table."""

from collections.abc import Collection
from dataclasses import replace

from unialign.errors import DataError
from unialign.items._columns import build_columns
from unialign.items._table import Table, check_kinds
from unialign.readers import ItemRecords

__all__ = ["collected"]


def collected(found: ItemRecords, *, ruled: Collection[str]) -> Table:
    """Collect the records into a table. Modalities in `ruled` must have cells; others without cells are omitted."""
    check_kinds(found.kinds)
    columns = build_columns(found.records, found.kinds, found.where)
    if not len(columns):
        raise DataError(f"{found.name!r} has no items; check the source")
    empty = [name for name, texts_N in columns.cells.items() if not (texts_N != "").any()]
    for name in empty:
        if name in ruled or len(empty) == len(columns.cells):
            raise DataError(
                f"the modality {name!r} of {found.name!r} has no cell in any item; check its rule and the source"
            )
    kinds = {name: kind for name, kind in found.kinds.items() if name not in empty}
    cells = {name: columns.cells[name] for name in kinds}
    notes = [f"{name!r} has no cell in any item and is left out" for name in empty]
    return Table(
        found.name,
        kinds,
        tuple(found.roots),
        found.license,
        replace(columns, cells=cells),
        notes=(*found.notes, *notes),
    )
