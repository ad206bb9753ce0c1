"""Open the recipe and the data of an experiment; data that are not a store are copied into a store."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unialign._datasets import datasets_folder
from unialign.config import CompareConfig
from unialign.data import EmbeddingStore, Sources, list_datasets, load_dataset, open_collection
from unialign.errors import ConfigError, DataError
from unialign.experiments._results_folder import DATA_FOLDER, Kind, open_run_dir
from unialign.io import lock_folder


def recipe(name: str) -> CompareConfig:
    """Return the predefined comparison for a data set (such as `emoji`), which was tuned on the validation split.

    Raises:
        ConfigError: unknown name; the message lists the known names.
        MissingDependencyError: `unialign-datasets` is not installed.
    """
    folder = datasets_folder("recipes")
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"unknown recipe {name!r}; expected one of {', '.join(known)}")
    return CompareConfig.read(folder / f"{name}.yaml")


def open_store(
    data: Sources, modalities: Sequence[str] | None, fingerprint: str | None, *, id: str | None = None
) -> EmbeddingStore:
    """Open a store with the given modalities (None: the defaults of the store).

    Raises:
        DataError: the store cannot be read, or its fingerprint differs from the given fingerprint.
    """
    store = load_dataset(data, id=id)
    if fingerprint is not None:
        store.check_fingerprint(fingerprint)
    return store if modalities is None else store.select(modalities)


def prepare_data(sources: Sequence[str], folder: Path, kind: Kind, *, id: str | None = None) -> str:
    """Return the name or path of a data set that can be opened by every process and by a resumed run.

    A named data set or a store is used in place. Files are written to `folder/data` as a store. Once the folder
    contains a configuration, later calls with the same files verify and reuse the store, and later calls with other
    files raise an error. If the files have no array `split`, a random split is used; for an evaluation, all items are
    in "test".

    Args:
        sources: as in `unialign.data.load_dataset`.
        id: name of the array of ids in the files, as in `load_dataset`.
        folder: results folder of the given `kind`; it is opened with `open_run_dir` before anything is written.

    Raises:
        ConfigError: the folder contains another result, or `folder/data` was created from other files.
        DataError: a source cannot be read, or the store of an earlier call was modified.
    """
    if len(sources) == 1 and (sources[0] in list_datasets() or os.path.exists(Path(sources[0]) / "store.json")):
        path = Path(sources[0])
        if path.name == DATA_FOLDER and (path.parent / "config.yaml").exists():
            _open_verified(path)
        return sources[0]
    target = folder / DATA_FOLDER
    settings = open_run_dir(folder, kind)
    listed: list[Any] = list(sources)
    if kind == "evaluation" and "split" not in (found := open_collection(listed, id=id)).values:
        # The space was trained on other data, so every item can be a test item.
        listed.append({"split": np.full(found.items, "test")})
    store = load_dataset(listed, id=id)
    if settings is not None and target.exists():
        if _open_verified(target).fingerprint != store.fingerprint:
            raise ConfigError(f"{target} was created from other files; choose another --out")
        return str(target)
    try:
        with lock_folder(folder, doing="writing its data"):
            # A folder without config.yaml contains no results, so data left by a failed command may be replaced.
            store.save(target, overwrite="replace")
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error
    return str(target)


def _open_verified(path: Path) -> EmbeddingStore:
    try:
        store = EmbeddingStore.open(path)
        store.verify()
    except DataError as error:
        raise DataError(f"{error}. Delete {path} and pass the original files again, or choose another --out") from None
    return store
