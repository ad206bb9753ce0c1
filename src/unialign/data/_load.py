"""Open data sets, files and arrays as an `EmbeddingStore`."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unialign._datasets import unknown_source
from unialign.data._item_values import label_codes, split_codes
from unialign.data._layout import DESCRIPTION_FILE, unsafe_name
from unialign.data._sources import Sources, find_store, list_sources, open_collection
from unialign.data._split import random_split
from unialign.data._store import EmbeddingStore
from unialign.errors import DataError, NonFiniteError
from unialign.io import checked_path
from unialign.readers import Collection, Reader, first_appearance_codes, is_pattern

__all__ = ["load_dataset"]

# Alternative names of the validation split.
_SPLIT_ALIASES = {"validation": "val", "valid": "val", "dev": "val"}


def load_dataset(
    sources: Sources,
    *,
    modalities: Sequence[str] | None = None,
    id: str | None = None,
    reader: str | Reader | None = None,
) -> EmbeddingStore:
    """Open embeddings as a store.

    Files other than stores are read once for validation and then memory-mapped, or loaded if they are compressed.
    Without an array `split`, a warning is issued, and items are split at random (70 % train, 10 % val, 20 % test, seed
    0); items of the same group or id share a split.

    Args:
        sources: name of a built-in data set (write "./digits" for a folder of that name), a store folder, a file
            (`.npz`, `.npy`, `.safetensors`, `.parquet`, `.csv`, `.jsonl`, `.h5`, ... see the page "Files and formats"),
            a folder or pattern of part files, `"NAME=FILE"`, a store, a mapping of name to (N, D) array, or
            a list of these with the same N items. Arrays named `ids`, `labels`, `groups`, `split`, `names` (N,) and
            `present.NAME` (N,) bool are per-item values, as are `.npy` files with these names. A warning lists unused
            arrays.
        modalities: names of the modalities to use. Default: all modalities, or the default modalities of a store.
        id: name of the array or column of ids that joins the files. Default: `ids`, or else a common name such as
            `id`, `key`, `uuid` or `image_id`, with a warning.
        reader: name or instance of the reader for all files. Default: chosen by file content.

    Raises:
        DataError: a source is missing, is damaged or has no matrix, sources are incompatible, a mask belongs to no
            modality, or `split` contains an unknown name.
        ShapeError, NonFiniteError: as in `EmbeddingStore.write`.
        ConfigError: unknown modalities or reader.
        MissingDependencyError: `unialign-datasets` (built-in data sets) or pyarrow (parquet) is not installed.
    """
    listed = list_sources(sources)
    if len(listed) == 1 and reader is None and id is None:
        store = _open_store(listed[0])
        if store is not None:
            return store if modalities is None else store.select(modalities)
    return _from_collection(open_collection(listed, modalities=modalities, id=id, reader=reader))


def _open_store(source: Any) -> EmbeddingStore | None:
    store = find_store(source)
    if store is not None or isinstance(source, Mapping) or (isinstance(source, str) and "=" in source):
        return store
    path = checked_path(source, "the data", error=DataError)
    if (path / DESCRIPTION_FILE).exists():
        return EmbeddingStore.open(path)
    if not path.exists() and not is_pattern(os.fspath(path)):
        raise unknown_source(os.fspath(source))
    return None


def _from_collection(collection: Collection) -> EmbeddingStore:
    values, items = collection.values, collection.items
    _check_names(collection)
    if collection.unused_masks:
        mask, known = collection.unused_masks[0], ", ".join(collection.modalities)
        raise DataError(f"{mask} belongs to no modality; the modalities are {known}")
    if collection.ignored:
        warnings.warn(f"unused arrays: {'; '.join(collection.ignored)}", UserWarning, stacklevel=3)
    for note in collection.notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    ids_N, groups_N = values.get("ids"), values.get("groups")
    if ids_N is not None and ids_N.dtype.kind == "u" and len(ids_N) and ids_N.max() > np.iinfo(np.int64).max:
        ids_N = ids_N.astype(np.str_)  # 64-bit hashes exceed int64
    if groups_N is not None and groups_N.dtype.kind not in "iu":
        groups_N = first_appearance_codes(groups_N)
    labels_N, label_names = label_codes(values.get("labels"))
    provenance: dict[str, Any] = {}
    if "split" in values:
        split_N = values["split"]
        split_N = split_codes(split_N if split_N.dtype.kind in "iu" else split_N.astype(str), _SPLIT_ALIASES)
    else:
        together_N = ids_N if groups_N is None else groups_N
        if together_N is not None and together_N.dtype.kind not in "iu":
            together_N = first_appearance_codes(together_N)
        split_N = random_split(items, groups=together_N)
        # Do not change this text, which is part of the fingerprint.
        provenance["split"] = "random: 70 % train, 10 % val, 20 % test, seed 0; items of one group or id together"
        warnings.warn(
            f"{collection.name!r} has no array `split`, so the split is random: 70 % train, 10 % val, 20 % test, seed "
            "0; items of the same group or id are kept together",
            UserWarning,
            stacklevel=3,
        )
    try:
        return EmbeddingStore.from_arrays(
            {name: modality.load() for name, modality in collection.modalities.items()},
            present={name: collection.modalities[name].present_N for name in collection.masked},
            ids=ids_N,
            groups=groups_N,
            labels=labels_N,
            label_names=label_names,
            split=split_N,
            names=values["names"].astype(str).tolist() if "names" in values else None,
            provenance=provenance,
            name=collection.name,
        )
    except NonFiniteError as error:
        files = ", ".join(f"{name!r} from {m.source.file.label}" for name, m in collection.modalities.items())
        raise NonFiniteError(f"{error}; the columns are {files}") from None


def _check_names(collection: Collection) -> None:
    files = [modality.source.file.label for modality in collection.modalities.values()]
    for file, name in zip(files, collection.modalities, strict=True):
        if problem := unsafe_name(name):
            advice = f"write 'NAME={file}'" if files.count(file) == 1 else "rename the array"
            raise DataError(f"{file}: the name {name!r} cannot be a file name: {problem}; {advice}")
