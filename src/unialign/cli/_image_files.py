"""Write the image files of `generate` and `demo`: enlarged generated images, and data thumbnails for the report."""

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from unialign.cli._console import echo
from unialign.data import EmbeddingStore
from unialign.experiments import copy_thumbnails
from unialign.generation import GenerationResult, grid, write_png

# Smallest side of an image file, in pixels.
_MIN_SIDE = 128


def enlargement(images: Tensor) -> int:
    """Return the factor by which images are enlarged in files."""
    return max(1, -(-_MIN_SIDE // images.shape[-1]))


def write_enlarged(path: Path, image: Tensor) -> None:
    """Write an image (3, S, S) as a PNG file, enlarged."""
    write_png(path, grid([[image]], gap=0, scale=enlargement(image)))


def compared_rows(result: GenerationResult) -> set[int]:
    """Return the store rows whose images are shown beside the generated ones."""
    entries = [entry for group in (*result.nearest, *(result.copies or [])) for entry in group]
    return {entry["row"] for entry in entries} | {row for condition in result.conditions for row in condition.rows}


def write_thumbnails(folder: Path, store: EmbeddingStore, anchor: str, rows: Collection[int]) -> None:
    """Write `thumbnails.zip` with the store's images of some rows, if it has any; report a damaged archive."""
    problem = copy_thumbnails(store, folder, lambda modality, row: row if modality == anchor and row in rows else None)
    if problem:
        echo(problem)
