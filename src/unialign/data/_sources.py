"""Open built-in data sets, stores, files and in-memory arrays as one collection."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unialign._checks import has_surrogate
from unialign._datasets import datasets_folder, list_datasets
from unialign.data._store import EmbeddingStore
from unialign.data._store_reader import store_file
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path
from unialign.readers import ArrayEntry, Collection, EmbeddingFile, Reader, collect, ids_beside, open_file, open_sources

__all__ = ["Sources", "find_store", "list_sources", "open_collection"]

Source = str | os.PathLike[str] | EmbeddingStore | Mapping[str, Any]
Sources = Source | Sequence[Source]


def open_collection(
    sources: Sources,
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    id: str | None = None,
    reader: str | Reader | None = None,
) -> Collection:
    """Open sources (see `load_dataset`) as named modalities of the same N items; only headers of matrices are read.

    Args:
        present, ids, labels: (N,) masks by modality, (N,) ids and (N,) labels, in addition to values in the sources.
        id: name of the array or column of ids that joins the files. Default: `ids`, or else a common name such as
            `id`, `key`, `uuid` or `image_id`, with a note.

    Raises:
        DataError: a source cannot be read or has no matrix, or sources are incompatible.
        ShapeError: a matrix is not an (N, D) array of floats, or masks or ids do not have shape (N,).
        ConfigError: names are unknown or repeated, or no source is given.
    """
    files: list[tuple[str | None, EmbeddingFile]] = []
    paths: list[tuple[str | None, str]] = []
    for source in list_sources(sources):
        opened = _open(source)
        if opened is None:
            paths.append(_named_path(source))
            continue
        files += [*open_sources(paths, reader=reader), (None, opened)]
        paths = []
    files += open_sources(paths, reader=reader)
    if not files:
        raise ConfigError("no source is given; pass at least one file of embeddings")
    if id is None:
        files += _ids_beside([file for _, file in files if file.kind == "npy"])
    return collect(files, modalities=modalities, present=present, ids=ids, labels=labels, id=id)


def _ids_beside(arrays: Sequence[EmbeddingFile]) -> list[tuple[str | None, EmbeddingFile]]:
    """Open the id files next to the arrays; a file with a different number of ids is left out, with a note."""
    found: list[tuple[str | None, EmbeddingFile]] = []
    for path in ids_beside([Path(array.label) for array in arrays]):
        # `ids_beside` returns absolute paths.
        beside = [array for array in arrays if Path(os.path.abspath(array.label)).parent == path.parent]
        rows = {entry.shape[0] for array in beside for entry in array.entries.values()}
        try:
            file = open_file(path)
            (entry,) = file.entries.values()
            problem = (
                ""
                if entry.shape[0] in rows
                else f"it has {entry.shape[0]:,} values, but the arrays have {sorted(rows)} rows"
            )
        except DataError as error:
            file, problem = EmbeddingFile(str(path), "npy", path.stem, {}), str(error)
        if problem:
            found.append((None, replace(file, entries={}, notes=(f"{path} is not used: {problem}",))))
        else:
            note = f"ids are read from {path}; use --id NAME or id=NAME to choose other ids"
            found.append(("ids", replace(file, notes=(note,))))
    return found


def list_sources(sources: Sources) -> list[Source]:
    return list(sources) if isinstance(sources, list | tuple) else [sources]  # type: ignore[list-item]


def find_store(source: object) -> EmbeddingStore | None:
    """Return the store of a built-in data set or a given store; `./NAME` is a path, even if NAME is a built-in data
    set.
    """
    if isinstance(source, EmbeddingStore):
        return source
    if isinstance(source, str) and source in list_datasets():
        return EmbeddingStore.open(datasets_folder("stores") / source)
    return None


def _open(source: Source) -> EmbeddingFile | None:
    store = find_store(source)
    if store is not None:
        return store_file(store, source if isinstance(source, str) else store.name)
    if isinstance(source, Mapping):
        entries = {str(key): ArrayEntry.from_array(str(key), value) for key, value in source.items()}
        return EmbeddingFile("memory", "memory", "arrays", entries)
    return None


def _named_path(source: Any) -> tuple[str | None, str]:
    text = str(checked_path(source, "the file", error=DataError))
    if has_surrogate(text):
        raise DataError(f"the path {text!r} cannot be encoded as UTF-8; rename the file or the folder")
    name, equals, rest = text.partition("=")
    if equals and name and os.sep not in name and not os.path.exists(text):
        return name, str(checked_path(rest, f"the file of {name!r}", error=DataError))
    return None, text
