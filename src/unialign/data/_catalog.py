"""Data by name: the sets that are shipped inside the package, or a folder."""

import os
from pathlib import Path

from unialign.data._store import EmbeddingStore
from unialign.errors import DataError
from unialign.io import checked_path

__all__ = ["list_datasets", "load_dataset"]

_SHIPPED = Path(__file__).parent / "shipped"
_NAMES = ("emoji", "digits")


def list_datasets() -> tuple[str, ...]:
    """Names of the shipped data sets, the default one first."""
    return _NAMES


def load_dataset(name_or_path: str | os.PathLike[str]) -> EmbeddingStore:
    """Open a shipped data set by its name, or the store folder at a path. A name wins; write "./digits" for a folder.

    Raises:
        DataError: neither a name nor a folder, or the folder is no readable store.
    """
    if isinstance(name_or_path, str) and name_or_path in _NAMES:
        return EmbeddingStore.open(_SHIPPED / name_or_path)
    if not checked_path(name_or_path, "the data", error=DataError).is_dir():
        known = ", ".join(map(repr, _NAMES))
        raise DataError(f"{os.fspath(name_or_path)!r} is neither a shipped data set ({known}) nor a folder; check it")
    return EmbeddingStore.open(name_or_path)
