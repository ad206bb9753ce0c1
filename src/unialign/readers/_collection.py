"""`Collection`: several files as named modalities of the same N items.

Each matrix is a modality; `present.NAME` or `present/NAME` (N,) bool is its presence mask; `ids`, `labels`, `groups`,
`split` and `names` (N,) are per-item values. Files with the same unique ids in another order are matched by id.

Shapes: `N` items, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ConfigError, DataError
from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._keys import ITEM_KEYS, MASK_PREFIXES, CollectedFile, contents, named_by_key
from unialign.readers._matching import item_values, match_ids, presence_masks, unused_masks
from unialign.readers._naming import Matrices, find_matrices
from unialign.readers._rows import MatchedRows, Rows

__all__ = ["Collection", "Modality", "collect", "first_appearance_codes"]


@dataclass(frozen=True)
class Modality:
    """One named matrix.

    Attributes:
        rows: the (N, D) rows; `chunks` follow the order of the file, `take` selects items.
        present_N: True where the item has a row.
        source, entry: the file, and the array as stored in it.
    """

    rows: Rows
    present_N: NDArray[np.bool_]
    source: CollectedFile
    entry: ArrayEntry

    def load(self) -> NDArray[Any]:
        """Return the (N, D) array in item order; memory-mapped if the file supports it."""
        return self.source.load(self.entry)


@dataclass(frozen=True)
class Collection:
    """Named modalities of N items.

    Attributes:
        name: name of the data, from the file names.
        values: (N,) arrays under the keys ids, labels, groups, split and names, where stored.
        kinds: distinct file formats.
        ignored: unused entries, with the reason.
        unused_masks: keys of presence masks without an array of that name; also in `ignored`.
        masked: modalities with a presence mask.
        matched: files whose rows are matched by ids.
    """

    name: str
    modalities: dict[str, Modality]
    items: int
    values: dict[str, NDArray[Any]]
    kinds: tuple[str, ...]
    ignored: tuple[str, ...]
    unused_masks: tuple[str, ...]
    masked: frozenset[str]
    matched: tuple[str, ...]

    @cached_property
    def ids_N(self) -> NDArray[np.int64] | None:
        """Codes of the ids; None without ids."""
        return first_appearance_codes(self.values["ids"]) if "ids" in self.values else None

    @cached_property
    def labels_N(self) -> NDArray[np.int64] | None:
        """Class codes, -1 = unlabeled; None without labels."""
        if "labels" not in self.values:
            return None
        values_N = self.values["labels"]
        codes_N = first_appearance_codes(values_N)
        return np.where(values_N < 0, -1, codes_N) if values_N.dtype.kind == "i" else codes_N


def collect(
    files: Sequence[tuple[str | None, EmbeddingFile]],
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
) -> Collection:
    """Combine opened files, each with the name given to its single matrix, or None; see `data.open_collection`."""
    sources = [named_by_key(given, file) for given, file in files]
    matrices, ignored = find_matrices(sources, modalities)
    if not matrices:
        what = "; ".join(f"{source.file.label}: {contents(source.file)}" for source in sources)
        raise DataError(f"found no embeddings, which are (items, dim) arrays of floats ({what})")
    items = _count_items(matrices)
    match_ids(sources, items)
    used = {source for source, _ in matrices.values()}
    kinds = tuple(dict.fromkeys(source.file.kind for source in sources))
    matched = tuple(source.file.label for source in sources if source.order_N is not None)
    sources += _from_arguments(present, {"ids": ids, "labels": labels}, matrices)
    masks = presence_masks(sources, matrices, items)
    unused = unused_masks(sources, matrices) if modalities is None else []
    ignored += [f"{source.place(entry)} (no array of that name)" for source, entry in unused]
    found: dict[str, Modality] = {}
    for modality, (source, entry) in matrices.items():
        rows = entry.rows() if source.order_N is None else MatchedRows(entry.rows(), source.order_N)
        found[modality] = Modality(rows, masks.get(modality, np.ones(items, np.bool_)), source, entry)
    values = {key: item_values(sources, key, items) for key in ITEM_KEYS}
    return Collection(
        name=", ".join(dict.fromkeys(source.file.stem for source in sources if source in used)),
        modalities=found,
        items=items,
        values={key: values_N for key, values_N in values.items() if values_N is not None},
        kinds=kinds,
        ignored=tuple(ignored),
        unused_masks=tuple(entry.key for _, entry in unused),
        masked=frozenset(masks),
        matched=matched,
    )


def first_appearance_codes(values_N: NDArray[Any]) -> NDArray[np.int64]:
    """Return codes 0, 1, ... in order of first appearance, so that texts and numbers get comparable codes."""
    _, first, code_N = np.unique(values_N, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code_N.reshape(-1)].astype(np.int64)


def _count_items(matrices: Matrices) -> int:
    first = next(iter(matrices))
    items = matrices[first][1].shape[0]
    source, entry = matrices[first]
    first_place = source.place(entry)
    for name, (source, entry) in matrices.items():
        if entry.shape[0] != items:
            raise DataError(
                f"{name!r} ({source.place(entry)}) has {entry.shape[0]:,} rows, {first!r} ({first_place}) "
                f"has {items:,}; row i of every modality must be the same item: use the same order and length, "
                f"and mark missing rows with a bool array present.{name}"
            )
    return items


def _from_arguments(
    present: Mapping[str, Any] | None, item_values: Mapping[str, Any], matrices: Matrices
) -> list[CollectedFile]:
    """Return masks, ids and labels passed as arguments as an additional file."""
    if present is not None and not isinstance(present, Mapping):
        raise ConfigError(f"present is {type(present).__name__}, expected a mapping of modality to (N,) bool")
    unknown = [str(name) for name in present or {} if name not in matrices]
    if unknown:
        raise ConfigError(f"present names {', '.join(unknown)}; the modalities are {', '.join(matrices)}")
    values = {f"{MASK_PREFIXES[0]}{name}": value for name, value in (present or {}).items()}
    values |= {key: value for key, value in item_values.items() if value is not None}
    entries = {key: ArrayEntry.from_array(key, value) for key, value in values.items()}
    return [CollectedFile(None, EmbeddingFile("the arguments", "memory", "", entries))] if entries else []
