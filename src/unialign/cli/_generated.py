"""Files beside generated pictures: the pictures, large enough to look at, and those of the data that pages compare."""

import io
import zipfile
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from unialign._files import replace_file
from unialign.cli._console import say
from unialign.data import EmbeddingStore
from unialign.generation import Made, grid, write_png

__all__ = ["compared_rows", "enlargement", "write_enlarged", "write_thumbnails"]

# A picture on disk is at least so large, so that it can be looked at.
_LEAST_SIDE = 128
_THUMBNAILS = "thumbnails.zip"
# Far above any thumbnail: a damaged or hostile archive must not fill the disk.
_LARGEST = 2**24


def enlargement(pictures: Tensor) -> int:
    """How many pixels a side stand for one."""
    return max(1, -(-_LEAST_SIDE // pictures.shape[-1]))


def write_enlarged(path: Path, picture: Tensor) -> None:
    """(3, S, S) as a PNG file."""
    write_png(path, grid([[picture]], gap=0, scale=enlargement(picture)))


def compared_rows(made: Made) -> set[int]:
    """Rows of the store whose pictures a page shows beside those that were made."""
    rows = {entry["row"] for near in made.nearest for entry in near} | {row for c in made.conditions for row in c.rows}
    return rows | {entry["row"] for samples in made.copies or [] for entry in samples}


def write_thumbnails(folder: Path, store: EmbeddingStore, anchor: str, rows: Collection[int]) -> None:
    """`thumbnails.zip` with the pictures of some rows, as the store has them; none where the store has none."""
    if _THUMBNAILS not in store.assets:
        (folder / _THUMBNAILS).unlink(missing_ok=True)  # of an earlier call, on other data
        return
    copy = io.BytesIO()
    try:
        with (
            zipfile.ZipFile(io.BytesIO(store.asset(_THUMBNAILS))) as pictures,
            zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as chosen,
        ):
            for info in pictures.infolist():
                modality, _, file = info.filename.partition("/")
                stem = file.partition(".")[0]
                wanted = modality == anchor and stem.isdecimal() and int(stem) in rows
                if wanted and info.file_size <= _LARGEST:
                    chosen.writestr(info.filename, pictures.read(info))
    except Exception as error:  # a damaged archive raises anything
        # They are decoration: what was made is there without them.
        say(f"{_THUMBNAILS} of {store.name!r} is no zip archive ({error}); the page has no pictures of the data")
        return
    replace_file(folder / _THUMBNAILS, copy.getvalue())
