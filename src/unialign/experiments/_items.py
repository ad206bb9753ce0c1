"""Copy names, labels and thumbnails of the evaluated items into the results folder for the report."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from unialign.data import THUMBNAILS, EmbeddingStore, Thumbnails
from unialign.errors import DataError
from unialign.experiments._results import write_json
from unialign.io import replace_file


def write_items(folder: Path, store: EmbeddingStore, split: str) -> None:
    """Write `items.json` (row, name, label of each evaluated item) and, if the store has them, their `thumbnails.zip`.

    Thumbnails are named `<modality>/<i>.webp`, where i is the position among the evaluated items.
    """
    rows = store.rows(split)
    names = store.item_names
    write_json(
        folder / "items.json",
        {
            "rows": rows.tolist(),
            "names": [names[row] for row in rows],
            "labels": store.labels[rows].tolist(),
            "label_names": list(store.label_names),
        },
    )
    position = {int(row): i for i, row in enumerate(rows)}
    problem = copy_thumbnails(
        store, folder, lambda modality, row: position.get(row) if modality.isidentifier() else None
    )
    if problem:
        # Missing thumbnails must not prevent the table and the report of a trained run.
        warnings.warn(problem, stacklevel=2)


def copy_thumbnails(store: EmbeddingStore, folder: Path, number: Callable[[str, int], int | None]) -> str:
    """Copy some of a store's thumbnails into `thumbnails.zip` in a folder, if the store has any.

    Args:
        number: (modality, row) -> number of the image in the copy; None leaves it out.

    Returns:
        "", or the reason why the store's archive cannot be read.
    """
    if THUMBNAILS not in store.assets:
        return ""
    copy = io.BytesIO()
    try:
        images = Thumbnails(store.asset(THUMBNAILS), f"{THUMBNAILS} of {store.name!r}")
        with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as chosen:
            for key in images:
                new = number(*key)
                if new is not None and (found := images.read(*key)):
                    chosen.writestr(f"{key[0]}/{new}.{found[1]}", found[0])
    except DataError as error:
        return f"{error}; no images"
    replace_file(folder / THUMBNAILS, copy.getvalue())
    return ""
