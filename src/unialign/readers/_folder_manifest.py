"""Find the manifest next to the media of a folder, such as the `metadata.csv` of Hugging Face folders."""

from collections.abc import Callable, Mapping
from pathlib import Path

from unialign.errors import ConfigError
from unialign.readers._folder_files import FolderFiles
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._manifest import ManifestFile, RowSource, manifest_items
from unialign.readers._splits import SPLIT_NAMES
from unialign.readers.csv import CsvItems
from unialign.readers.jsonl import JsonItems
from unialign.readers.parquet import ParquetItems

__all__ = ["manifest_of"]

_SOURCES: Mapping[str, Callable[[Path], RowSource]] = {
    "metadata.csv": CsvItems,
    "metadata.jsonl": JsonItems,
    "metadata.parquet": ParquetItems,
}


def manifest_of(found: FolderFiles, options: ItemOptions) -> ItemRecords | None:
    """Read the manifest in the folder or in the folders of its splits; return None if there is none."""
    paths = [path for path in found.paths if path.rpartition("/")[2] in _SOURCES and path.count("/") <= 1]
    if (
        not paths
        or options.layout != "auto"
        or any(_is_place(place) for rule in options.rules.values() for place in rule)
    ):
        return None
    files = [_manifest(found.folder, path) for path in paths]
    prefixes = [file.prefix for file in files]
    if len(set(prefixes)) < len(prefixes):
        raise ConfigError(f"{found.folder} has {' and '.join(paths)}; keep one of them in each folder")
    if "" in prefixes and len(prefixes) > 1:
        files = [file for file in files if not file.prefix]
    return manifest_items(files, options, name=found.folder.absolute().name, root=found.folder)


def _is_place(rule: str) -> bool:
    """Return whether a rule is a suffix or a subfolder, not a column."""
    return rule.endswith("/") or "." in rule


def _manifest(folder: Path, path: str) -> ManifestFile:
    prefix = path[: path.rfind("/") + 1]
    return ManifestFile(
        _SOURCES[path[len(prefix) :]](folder / path), prefix, SPLIT_NAMES.get(prefix[:-1].lower()), prefix[:-1]
    )
