"""Open the data of an experiment: stores by name or path, and files, which are copied into a store once."""

from collections.abc import Sequence
from pathlib import Path

from unialign.data import EmbeddingStore, list_datasets, load_dataset
from unialign.errors import ConfigError
from unialign.experiments._run_dir import DATA_FOLDER, Kind, open_run_dir

__all__ = ["open_store", "prepare_data"]


def open_store(data: str, modalities: Sequence[str] | None, fingerprint: str | None) -> EmbeddingStore:
    """Open a store with the given modalities (None: its defaults).

    Raises:
        DataError: the store cannot be read, or its fingerprint differs from the given one.
    """
    store = load_dataset(data)
    if fingerprint is not None:
        store.check_fingerprint(fingerprint)
    return store if modalities is None else store.select(modalities)


def prepare_data(sources: Sequence[str], folder: Path, kind: Kind) -> str:
    """Return the name or path of a data set that every process and a resumed run can open.

    A named data set or a store is used in place. Files are written to `folder/data` as a store once; later calls reuse
    it for the same files and raise for others.

    Args:
        sources: see `unialign.data.load_dataset`.
        folder: results folder, opened by `open_run_dir` before anything is written.
        kind: the kind of result.

    Raises:
        ConfigError: the folder holds another result, or `folder/data` was made from other files.
        DataError: a source cannot be read.
    """
    if len(sources) == 1 and (sources[0] in list_datasets() or Path(sources[0]).is_dir()):
        return sources[0]
    target = folder / DATA_FOLDER
    open_run_dir(folder, kind)
    store = load_dataset(list(sources))
    if not target.exists():
        store.save(target)
    elif EmbeddingStore.open(target).fingerprint != store.fingerprint:
        raise ConfigError(f"{target} was made from other files; choose another --out")
    return str(target)
