"""Files beside generated images: the images, large enough to look at, and those of the data that pages compare."""

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from unialign.cli._console import echo
from unialign.data import EmbeddingStore
from unialign.experiments import copy_thumbnails
from unialign.generation import GenerationResult, grid, write_png

__all__ = ["compared_rows", "enlargement", "write_enlarged", "write_thumbnails"]

# An image on disk is at least so large, so that it can be looked at.
_LEAST_SIDE = 128


def enlargement(images: Tensor) -> int:
    """How many pixels a side stand for one."""
    return max(1, -(-_LEAST_SIDE // images.shape[-1]))


def write_enlarged(path: Path, image: Tensor) -> None:
    """(3, S, S) as a PNG file."""
    write_png(path, grid([[image]], gap=0, scale=enlargement(image)))


def compared_rows(made: GenerationResult) -> set[int]:
    """Rows of the store whose images a page shows beside those that were made."""
    rows = {entry["row"] for near in made.nearest for entry in near} | {row for c in made.conditions for row in c.rows}
    return rows | {entry["row"] for samples in made.copies or [] for entry in samples}


def write_thumbnails(folder: Path, store: EmbeddingStore, anchor: str, rows: Collection[int]) -> None:
    """`thumbnails.zip` with the images of some rows, as the store has them; none where the store has none."""
    flaw = copy_thumbnails(store, folder, lambda modality, row: row if modality == anchor and row in rows else None)
    if flaw:
        echo(flaw)  # they are decoration: what was made is there without them
