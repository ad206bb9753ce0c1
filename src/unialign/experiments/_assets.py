"""What a report shows of the items themselves, copied beside the results so that it outlives the data."""

import io
import warnings
import zipfile
from pathlib import Path

from unialign._files import replace_file
from unialign.data import EmbeddingStore
from unialign.experiments._results import write_json

__all__ = ["write_items"]

THUMBNAILS = "thumbnails.zip"


def write_items(folder: Path, store: EmbeddingStore, split: str) -> None:
    """Write `items.json` (row, name, label of each evaluated item) and, if the store has them, their `thumbnails.zip`.

    Thumbnails are named `<modality>/<i>.webp`, i = position among the evaluated items.
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
    if THUMBNAILS not in store.assets:
        return
    position = {int(row): i for i, row in enumerate(rows)}
    copy = io.BytesIO()
    try:
        with (
            zipfile.ZipFile(io.BytesIO(store.asset(THUMBNAILS))) as pictures,
            zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as chosen,
        ):
            for name in pictures.namelist():
                modality, _, file = name.partition("/")
                stem, _, kind = file.partition(".")
                if stem.isdecimal() and int(stem) in position and modality.isidentifier():
                    chosen.writestr(f"{modality}/{position[int(stem)]}.{kind}", pictures.read(name))
    except zipfile.BadZipFile as error:
        # Pictures are decoration: a trained run keeps its table and report without them.
        warnings.warn(f"{THUMBNAILS} of {store.name!r} is no zip archive ({error}); no pictures", stacklevel=2)
        return
    replace_file(folder / THUMBNAILS, copy.getvalue())
