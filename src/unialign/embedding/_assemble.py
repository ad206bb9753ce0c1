"""Write the store from the parts of all columns.

Shapes: `N` items, `n` distinct cells of a column, `W` dimension of its features.
"""

import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data import THUMBNAILS, EmbeddingStore, Overwrite, RowReader, StreamedAsset, thumbnail_archive
from unialign.embedding._cells_file import CellsFile, join_parts
from unialign.embedding._plan import Plan
from unialign.embedding._work_folder import WorkFolder
from unialign.errors import DataError
from unialign.items import Items, broken_cell_records
from unialign.media import Cell

__all__ = ["BROKEN", "FILES", "ITEMS", "MARKS", "Cells", "assemble", "store_options"]

BROKEN, ITEMS, FILES, MARKS = "broken.jsonl", "items.jsonl", "files.jsonl", "marks.jsonl"
_ROWS = 4096

# Distinct cells of a column, and the (N,) index of the cell of each item, -1 if absent.
Cells = tuple[Sequence[Cell], NDArray[np.int64]]


def store_options(items: Items) -> dict[str, Any]:
    # Texts, since numbers by first appearance could not be compared with the ids of other stores.
    text_ids = items.text_ids
    return {
        "ids": None if text_ids is None else text_ids.tolist(),
        "groups": items.groups if items.has_groups else None,
        "labels": items.labels if items.label_names else None,
        "label_names": items.label_names or None,
        "split": items.split if items.has_split else None,
        "names": items.keys.tolist(),
    }


def assemble(
    plan: Plan,
    items: Items,
    cells: Mapping[str, Cells],
    folder: WorkFolder,
    *,
    overwrite: Overwrite,
    check_stop: Callable[[], None],
) -> EmbeddingStore:
    """Write the store atomically. If the process is killed before the last step, the call can be repeated."""
    with contextlib.ExitStack() as stack:
        stack.callback(folder.discard_cells)
        joined = {name: stack.enter_context(_joined(plan, name, folder)) for name in plan.columns}
        present = {name: _present(joined[name], cells[name][1]) for name in plan.columns}
        for name, present_N in present.items():
            if not present_N.any():
                raise DataError(
                    f"no cell of {name!r} has content ({len(joined[name].broken):,} are broken, the others are blank); "
                    f"leave out {name!r}, or correct the data and pass retry_broken=True"
                )
        columns = {
            name: _blocks(joined[name], cells[name][1], present_N, check_stop) for name, present_N in present.items()
        }
        assets: dict[str, StreamedAsset] = {ITEMS: StreamedAsset(items.lines)}
        if any(column.broken for column in joined.values()):
            assets[BROKEN] = StreamedAsset(lambda: _broken_lines(joined, cells, items))
        if plan.settings.hash:
            assets[FILES] = StreamedAsset(lambda: _file_lines(joined, cells))
        if any(column.marks.stat().st_size for column in joined.values()):
            assets[MARKS] = StreamedAsset(lambda: _mark_lines(joined))
        if any(column.images is not None for column in joined.values()):
            assets[THUMBNAILS] = StreamedAsset(lambda: thumbnail_archive(_images(joined, cells, present, check_stop)))
        with warnings.catch_warnings():
            # The same options gave the same warnings before the first cell was encoded.
            warnings.simplefilter("ignore", UserWarning)
            return EmbeddingStore.write(
                folder.target,
                columns,
                name=items.name,
                overwrite=overwrite,
                present=present,
                provenance=_provenance(plan, items, joined, present),
                assets=assets,
                **store_options(items),
            )


def _joined(plan: Plan, name: str, folder: WorkFolder) -> CellsFile:
    try:
        return join_parts(plan, name, folder)
    except OSError as error:
        raise DataError(
            f"cannot join the parts in {folder.path}: {error.strerror or error}; finished parts are kept: free space, "
            "and repeat the call to continue"
        ) from error


def _present(column: CellsFile, index_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    present_N = index_N >= 0
    present_N[present_N] = column.encoded[index_N[present_N]]
    return present_N


def _blocks(
    column: CellsFile, index_N: NDArray[np.int64], present_N: NDArray[np.bool_], check_stop: Callable[[], None]
) -> Iterator[NDArray[Any]]:
    reader = RowReader(column.features)
    for start in range(0, len(index_N), _ROWS):
        check_stop()
        block = slice(start, start + _ROWS)
        rows_bW = np.zeros((len(index_N[block]), column.features.shape[1]), column.features.dtype)
        # The rows of absent items are zero, so that the bytes of the store are reproducible.
        rows_bW[present_N[block]] = reader.read(index_N[block][present_N[block]])
        yield rows_bW


def _images(
    joined: Mapping[str, CellsFile],
    cells: Mapping[str, Cells],
    present: Mapping[str, NDArray[np.bool_]],
    check_stop: Callable[[], None],
) -> Iterator[tuple[str, bytes]]:
    for name, column in joined.items():
        if column.images is None:
            continue
        for row in np.flatnonzero(present[name]).tolist():
            if row % _ROWS == 0:
                check_stop()
            image = column.thumbnail(int(cells[name][1][row]))
            if image:
                yield f"{name}/{row}.webp", image


def _broken_lines(joined: Mapping[str, CellsFile], cells: Mapping[str, Cells], items: Items) -> Iterator[bytes]:
    for name, column in joined.items():
        broken = ((own.cell, own.code, own.detail) for own in column.broken)
        yield from map(_line, broken_cell_records(name, items.keys, *cells[name], broken))


def _file_lines(joined: Mapping[str, CellsFile], cells: Mapping[str, Cells]) -> Iterator[bytes]:
    for name, column in joined.items():
        for number, sha256 in sorted(column.hashes.items()):
            yield _line({"modality": name, "source": cells[name][0][number].to_json(), "sha256": sha256})


def _mark_lines(joined: Mapping[str, CellsFile]) -> Iterator[bytes]:
    for column in joined.values():
        with column.marks.open("rb") as file:
            yield from file


def _line(entry: Mapping[str, Any]) -> bytes:
    return (json.dumps(entry, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _provenance(
    plan: Plan, items: Items, joined: Mapping[str, CellsFile], present: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Any]:
    columns = {}
    for name, column in plan.columns.items():
        reference = dict(column.reference)
        codes = Counter(broken.code for broken in joined[name].broken)
        columns[name] = {
            "encoder": f"{reference['kind']}:{reference['name']}",
            "fingerprint": column.encoder,
            "reference": reference,
            "input": {
                "items": plan.items,
                "cells": column.cells,
                "cells_sha256": column.cells_sha256,
                "absent": int((~present[name]).sum()),
                "broken": dict(sorted(codes.items())),
            },
            "packages": dict(reference.get("packages", {})),
            "license": reference.get("license", "unknown"),
        }
    data = {"name": items.name, "fingerprint": plan.items, "license": items.license}
    return {"made_by": "unialign.embed", "data": data, "plan": plan.describe(), "columns": columns}
