"""Read folders of media files: by suffixes, one subfolder per modality, or one subfolder per class."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unialign.errors import ConfigError, DataError
from unialign.readers._entry import EmbeddingFile
from unialign.readers._folder_files import list_files
from unialign.readers._folder_layouts import Arranged, arranged
from unialign.readers._folder_manifest import manifest_of
from unialign.readers._gram_files import is_gram_folder
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._no_arrays import no_arrays
from unialign.readers._vggsound_files import is_vggsound_folder
from unialign.readers.hf import is_saved_dataset

__all__ = ["FolderReader"]


class FolderReader:
    """Reader of the media files below a folder."""

    name = "folder"
    suffixes = ()
    items_only = True

    def can_read(self, path: Path, head: bytes) -> bool:
        return path.is_dir() and not (is_saved_dataset(path) or is_gram_folder(path) or is_vggsound_folder(path))

    def open(self, path: Path) -> EmbeddingFile:
        raise no_arrays(path)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        if len(paths) > 1:
            raise ConfigError("pass one folder of media; join the tables of several folders with Items.join or concat")
        (folder,) = paths
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; pass a folder of media files")
        found = list_files(folder)
        manifest = manifest_of(found, options)
        if manifest is not None:
            return manifest
        items = arranged(found, options)
        stems = list(items.files)
        return ItemRecords(
            name=folder.absolute().name,
            kinds=items.kinds,
            records=_records(items),
            where=lambda row: f"{folder}, item {stems[row]!r}",
            roots=(folder.absolute(),),
            notes=items.notes,
        )


def _records(items: Arranged) -> Iterator[dict[str, Any]]:
    for stem, files in items.files.items():
        record: dict[str, Any] = {"id": stem, "cells": {name: {"path": path} for name, path in files.items()}}
        if stem in items.labels:
            record["label"] = items.labels[stem]
        if stem in items.splits:
            record["split"] = items.splits[stem]
        yield record
