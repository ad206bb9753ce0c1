"""Write an index to another vector database."""

from collections.abc import Iterator

import numpy as np

from unialign.index._backends import Row, make_manifest, make_row, open_back_end
from unialign.index._derived import row_places
from unialign.index._storage import Storage, place_mask

_BATCH = 2000


def export_index(storage: Storage, address: str) -> int:
    """Write the living items with corrected vectors, and return their number."""
    space = storage.catalog.meta("space")
    manifest = make_manifest(storage.calibration, storage.modalities, storage.dim, space)
    back_end = open_back_end(address)
    return back_end.replace(_rows(storage), modalities=storage.modalities, dim=storage.dim, manifest=manifest)


def _rows(storage: Storage) -> Iterator[list[Row]]:
    for part in storage.snapshot.parts:
        places = np.flatnonzero(place_mask(storage.snapshot, part))
        numbers = {
            name: dict(zip(row_places(part, name).tolist(), range(len(rows)), strict=True))
            for name, rows in part.rows.items()
        }
        for start in range(0, len(places), _BATCH):
            chosen = places[start : start + _BATCH].tolist()
            records = storage.catalog.at_places([(part.id, place) for place in chosen])
            yield [
                make_row(
                    record.key,
                    record.name,
                    record.label,
                    record.metadata,
                    {name: np.array(part.rows[name][rows[place]]) for name, rows in numbers.items() if place in rows},
                    storage.calibration,
                )
                for record, place in zip(records, chosen, strict=True)
            ]
