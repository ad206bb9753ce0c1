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
from unialign.readers._keys import ITEM_KEYS, MASK_PREFIXES, contents, named_by_key, place
from unialign.readers._matching import item_values, match_ids, presence_masks, unused_masks
from unialign.readers._naming import Matrices, NamedFiles, find_matrices
from unialign.readers._rows import MatchedRows, Rows

__all__ = ["Collection", "Modality", "collect", "first_appearance_codes"]


@dataclass(frozen=True)
class Modality:
    """One named matrix.

    Attributes:
        rows: the (N, D) rows; `chunks` follow the order of the file, `take` selects items.
        present_N: True where the item has a row.
        label, key: file, and key in the file.
        order_N: file row of each item if the file is reordered by ids, else None.
        entry: the array as stored in the file.
    """

    rows: Rows
    present_N: NDArray[np.bool_]
    label: str
    key: str
    order_N: NDArray[np.int64] | None
    entry: ArrayEntry

    def load(self) -> NDArray[Any]:
        """(N, D) array in item order; memory-mapped if the file supports it."""
        array_ND = self.entry.load()
        return array_ND if self.order_N is None else array_ND[self.order_N]


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
    files: NamedFiles,
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
) -> Collection:
    """Combine opened files, each with the name given to its single matrix, or None; see `data.open_collection`."""
    files = [named_by_key(given, file) for given, file in files]
    matrices, ignored = find_matrices(files, modalities)
    if not matrices:
        what = "; ".join(f"{file.label}: {contents(file)}" for _, file in files)
        raise DataError(f"found no embeddings, which are (items, dim) arrays of floats ({what})")
    items = _count_items(matrices)
    orders = match_ids(files, items)
    kinds = tuple(dict.fromkeys(file.kind for _, file in files))
    used = {id(file) for file, _ in matrices.values()}
    name = ", ".join(dict.fromkeys(file.stem for _, file in files if id(file) in used))
    matched = tuple(file.label for _, file in files if id(file) in orders)
    files = [*files, *_from_arguments(present, {"ids": ids, "labels": labels}, matrices)]
    masks = presence_masks(files, matrices, items, orders)
    unused = unused_masks(files, matrices) if modalities is None else []
    ignored += [f"{place(file, entry)} (no array of that name)" for file, entry in unused]
    found: dict[str, Modality] = {}
    for modality, (file, entry) in matrices.items():
        order_N = orders.get(id(file))
        rows = entry.rows() if order_N is None else MatchedRows(entry.rows(), order_N)
        present_N = masks.get(modality, np.ones(items, np.bool_))
        found[modality] = Modality(rows, present_N, file.label, entry.key, order_N, entry)
    values = {key: item_values(files, key, items, orders) for key in ITEM_KEYS}
    return Collection(
        name=name,
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
    for name, (file, entry) in matrices.items():
        if entry.shape[0] != items:
            raise DataError(
                f"{name!r} ({place(file, entry)}) has {entry.shape[0]:,} rows, {first!r} ({place(*matrices[first])}) "
                f"has {items:,}; row i of every modality must be the same item: use the same order and length, "
                f"and mark missing rows with a bool array present.{name}"
            )
    return items


def _from_arguments(
    present: Mapping[str, Any] | None, item_values: Mapping[str, Any], matrices: Matrices
) -> NamedFiles:
    """Return masks, ids and labels passed as arguments as an additional file."""
    if present is not None and not isinstance(present, Mapping):
        raise ConfigError(f"present is {type(present).__name__}, expected a mapping of modality to (N,) bool")
    unknown = [str(name) for name in present or {} if name not in matrices]
    if unknown:
        raise ConfigError(f"present names {', '.join(unknown)}; the modalities are {', '.join(matrices)}")
    values = {f"{MASK_PREFIXES[0]}{name}": value for name, value in (present or {}).items()}
    values |= {key: value for key, value in item_values.items() if value is not None}
    entries = {key: ArrayEntry.from_array(key, value) for key, value in values.items()}
    return [(None, EmbeddingFile("the arguments", "memory", "", entries))] if entries else []
