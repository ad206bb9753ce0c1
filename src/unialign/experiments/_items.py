"""Copy the names, labels and thumbnails of the evaluated items into the results folder for the report."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

from unialign.data import THUMBNAILS, EmbeddingStore, Thumbnails
from unialign.errors import DataError
from unialign.experiments._results import write_json
from unialign.io import replace_file


def write_items(folder: Path, store: EmbeddingStore, split: str) -> None:
    """Write `items.json` (row, id, name, label of each evaluated item) and `thumbnails.zip` if the store has images.

    Thumbnails are named `<modality>/<i>.webp`, where i is the position among the evaluated items.
    """
    rows = store.rows(split)
    names = store.item_names
    write_json(
        folder / "items.json",
        {
            "rows": rows.tolist(),
            "ids": store.ids[rows].tolist(),
            "names": [names[row] for row in rows],
            "labels": store.labels[rows].tolist(),
            "label_names": list(store.label_names),
        },
    )
    copy_thumbnails(store, folder, {int(row): i for i, row in enumerate(rows)})


def copy_thumbnails(
    store: EmbeddingStore, folder: Path, numbers: Mapping[int, int], *, modality: str | None = None
) -> None:
    """Copy thumbnails of a store into `thumbnails.zip` in a folder; warn if the store's archive is damaged.

    Args:
        numbers: row -> image number in the copy.
        modality: modality of the images; None: all modalities of the store.
    """
    if THUMBNAILS not in store.assets:
        return
    copy = io.BytesIO()
    try:
        with store.open_asset(THUMBNAILS) as file, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as chosen:
            images = Thumbnails(file, f"{THUMBNAILS} of {store.name!r}")
            for name, row in images:
                wanted = name in store.columns if modality is None else name == modality
                if wanted and row in numbers and (found := images.read(name, row)):
                    chosen.writestr(f"{name}/{numbers[row]}.{found[1]}", found[0])
    except DataError as error:
        # Missing thumbnails must not prevent the report of a finished run.
        warnings.warn(f"{error}; no images", stacklevel=2)
        return
    replace_file(folder / THUMBNAILS, copy.getvalue())
