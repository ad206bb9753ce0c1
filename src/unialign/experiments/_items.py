"""What a report shows of the items themselves, copied beside the results so that it outlives the data."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from unialign.data import EmbeddingStore
from unialign.experiments._results import write_json
from unialign.io import replace_file

__all__ = ["copy_thumbnails", "write_items"]

THUMBNAILS = "thumbnails.zip"
# Far above any thumbnail: a damaged or hostile archive must not fill the memory or the disk.
_LARGEST = 2**24


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
    position = {int(row): i for i, row in enumerate(rows)}
    flaw = copy_thumbnails(store, folder, lambda modality, row: position.get(row) if modality.isidentifier() else None)
    if flaw:
        # Pictures are decoration: a trained run keeps its table and report without them.
        warnings.warn(flaw, stacklevel=2)


def copy_thumbnails(store: EmbeddingStore, folder: Path, number: Callable[[str, int], int | None]) -> str:
    """Some of a store's pictures as `thumbnails.zip` in a folder; none where the store has none.

    Args:
        number: (modality, row) -> the number that its picture gets in the copy, None for one that is left out.

    Returns:
        Why there are none, in words, if the store's archive cannot be read; else "".
    """
    if THUMBNAILS not in store.assets:
        return ""
    copy = io.BytesIO()
    try:
        with (
            zipfile.ZipFile(io.BytesIO(store.asset(THUMBNAILS))) as pictures,
            zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as chosen,
        ):
            for info in pictures.infolist():
                modality, _, file = info.filename.partition("/")
                stem, _, kind = file.partition(".")
                new = number(modality, int(stem)) if stem.isdecimal() and info.file_size <= _LARGEST else None
                if new is not None:
                    chosen.writestr(f"{modality}/{new}.{kind}", pictures.read(info))
    except Exception as error:  # a damaged archive raises anything
        return f"{THUMBNAILS} of {store.name!r} is no zip archive ({error}); no pictures"
    replace_file(folder / THUMBNAILS, copy.getvalue())
    return ""
