"""Distinguish sources of items with media from files of embeddings."""

from collections.abc import Sequence
from pathlib import Path

from unialign.readers._gram_files import is_annotation, is_gram_folder
from unialign.readers._vggsound_files import is_vggsound_folder

__all__ = ["is_item_source"]


def is_item_source(paths: Sequence[Path]) -> bool:
    """Return whether the paths are saved item tables or the annotations of a benchmark."""
    return all(
        (path / "items.json").is_file() or is_gram_folder(path) or is_vggsound_folder(path) or is_annotation(path.name)
        for path in paths
    )
