"""Read folders written by `save_to_disk` of the library `datasets`, with the splits of a `DatasetDict`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import ConfigError, DataError
from unialign.io import open_regular, reject_links_out
from unialign.readers._entry import EmbeddingFile
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._manifest import ManifestFile, manifest_items
from unialign.readers._no_arrays import no_arrays
from unialign.readers._splits import SPLIT_NAMES
from unialign.readers.arrow import ArrowItems

__all__ = ["HuggingFaceReader"]

_STATE, _SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"
_MAX_JSON_BYTES = 1 << 24


class HuggingFaceReader:
    """Reader of Hugging Face data sets on disk. Parquet files written by `datasets` are read by the `parquet`
    reader.
    """

    name = "hf"
    suffixes = ()
    items_only = True

    def can_read(self, path: Path, head: bytes) -> bool:
        return is_saved_dataset(path)

    def open(self, path: Path) -> EmbeddingFile:
        raise no_arrays(path)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        if len(paths) > 1:
            raise ConfigError("pass one folder of a data set; combine the tables of several with Items.concat")
        (folder,) = paths
        if not (folder / _SPLITS).is_file():
            files = [ManifestFile(source, split=None) for source in _sources(folder)]
        else:
            names = _json(folder, _SPLITS).get("splits")
            if not isinstance(names, list) or not all(isinstance(name, str) and _is_name(name) for name in names):
                raise DataError(f"{folder / _SPLITS} lists no splits; save the data set again")
            files = [
                ManifestFile(source, split=SPLIT_NAMES.get(name.lower()), label=name)
                for name in names
                for source in _sources(folder / name)
            ]
        return manifest_items(files, options, name=folder.absolute().name, root=folder)


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder is a data set of `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (path / _SPLITS).is_file() or ((path / _STATE).is_file() and (path / _INFO).is_file())


def _sources(folder: Path) -> list[ArrowItems]:
    state = _json(folder, _STATE)
    entries = state.get("_data_files")
    names: list[Any] = [entry.get("filename") for entry in entries] if isinstance(entries, list) else []
    if not names or not all(isinstance(name, str) and _is_name(name) for name in names):
        raise DataError(f"{folder / _STATE} lists no Arrow files; save the data set again with save_to_disk")
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} is a selection of rows; save it again with flatten_indices().save_to_disk(...)")
    for name in names:
        reject_links_out(folder / name, folder, error=DataError)
    return [ArrowItems(folder / name) for name in names]


def _is_name(name: str) -> bool:
    return "/" not in name and "\\" not in name and name not in ("", ".", "..")


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        with open_regular(path) as file:
            body = json.loads(file.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({one_line(error)}); save the data set again") from None
    if not isinstance(body, dict):
        raise DataError(f"{path} is not a JSON object; save the data set again")
    return body
