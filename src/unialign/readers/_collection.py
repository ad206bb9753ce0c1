"""Combine several files into named modalities of the same N items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ConfigError, DataError
from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._ids import find_ids
from unialign.readers._join import join_files
from unialign.readers._keys import ITEM_KEYS, MASK_PREFIXES, CollectedFile, contents, named_by_key
from unialign.readers._matching import as_text, item_values, presence_masks, unused_masks
from unialign.readers._naming import Matrices, find_matrices
from unialign.readers._rows import MatchedRows, Rows

# Formats whose files may list media and texts.
_TABLES = ("csv", "jsonl", "parquet", "arrow")

__all__ = ["Collection", "Modality", "collect", "first_appearance_codes"]


@dataclass(frozen=True)
class Modality:
    """Matrix and presence mask of a modality.

    Attributes:
        rows: the (N, D) rows; `chunks` yields rows in file order, and `take` selects rows by item.
        present_N: True if the item has a row.
        source, entry: the file, and the array as stored in the file.
    """

    rows: Rows
    present_N: NDArray[np.bool_]
    source: CollectedFile
    entry: ArrayEntry

    def load(self) -> NDArray[Any]:
        """Return the (N, D) array in item order; memory-mapped if the format of the file permits."""
        return self.source.load(self.entry)


@dataclass(frozen=True)
class Collection:
    """Named modalities of N items.

    Attributes:
        name: name of the data, derived from the file names.
        values: the stored (N,) arrays by key (ids, labels, groups, split or names).
        kinds: distinct file formats.
        ignored: unused entries, with reasons.
        unused_masks: keys of presence masks that belong to no array; these keys are also in `ignored`.
        masked: modalities with a presence mask.
        matched: the files whose rows are matched by ids.
        notes: messages for the user about parts, guessed ids and missing items.
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
    notes: tuple[str, ...] = ()

    @cached_property
    def ids_N(self) -> NDArray[np.int64] | None:
        """Integer codes of the ids; None if there are no ids."""
        return first_appearance_codes(self.values["ids"]) if "ids" in self.values else None

    @cached_property
    def labels_N(self) -> NDArray[np.int64] | None:
        """Class codes, -1 for unlabeled items; None if there are no labels."""
        if "labels" not in self.values:
            return None
        values_N = self.values["labels"]
        unlabeled_N = values_N < 0 if values_N.dtype.kind in "iu" else values_N.astype(np.str_) == ""
        return np.where(unlabeled_N, -1, first_appearance_codes(values_N))


def collect(
    files: Sequence[tuple[str | None, EmbeddingFile]],
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    id: str | None = None,
) -> Collection:
    """Combine opened files, given as pairs of a name (or None) and a file; see `data.open_collection`."""
    sources = [named_by_key(given, file) for given, file in files]
    found_ids, id_notes = find_ids(sources, id)
    matrices, ignored, notes = find_matrices(sources, modalities)
    if not matrices:
        what = "; ".join(f"{source.file.label}: {contents(source.file)}" for source in sources)
        is_table = any(source.file.kind in _TABLES for source in sources)
        advice = (
            "; list media and texts with: unialign inspect; then encode them with: unialign embed" if is_table else ""
        )
        raise DataError(f"found no embeddings; expected (items, dim) arrays of floats, got {what}{advice}")
    join = join_files(sources, matrices, found_ids)
    items, matched = join.items, join.matched
    used = {source for source, _ in matrices.values()}
    kinds = tuple(dict.fromkeys(source.file.kind for source in sources))
    file_notes = [note for source in sources for note in source.file.notes]
    sources += _from_arguments(present, {"ids": ids, "labels": labels}, matrices)
    masks = presence_masks(sources, matrices, items)
    unused = unused_masks(sources, matrices) if modalities is None else []
    ignored += [f"{source.place(entry)} (no array with that name)" for source, entry in unused]
    found: dict[str, Modality] = {}
    for modality, (source, entry) in matrices.items():
        rows, order_N = entry.rows(), source.order_N
        present_N = masks.get(modality, np.ones(items, np.bool_))
        if order_N is not None:
            rows, present_N = MatchedRows(rows, order_N), present_N & (order_N >= 0)
        found[modality] = Modality(rows, present_N, source, entry)
    values = {key: item_values(sources, key, items) for key in ITEM_KEYS if key != "ids" or join.ids_N is None}
    if join.ids_N is not None:
        values["ids"] = _with_argument(join.ids_N, sources, items, is_guessed=join.is_guessed)
    return Collection(
        name=", ".join(dict.fromkeys(source.file.stem for source in sources if source in used)),
        modalities=found,
        items=items,
        values={key: values_N for key, values_N in values.items() if values_N is not None},
        kinds=kinds,
        ignored=tuple(ignored),
        unused_masks=tuple(entry.key for _, entry in unused),
        masked=frozenset(name for name, modality in found.items() if not modality.present_N.all()) | frozenset(masks),
        matched=matched,
        notes=(*id_notes, *file_notes, *notes, *join.notes),
    )


def first_appearance_codes(values_N: NDArray[Any]) -> NDArray[np.int64]:
    """Return codes 0, 1, ... in order of first appearance; equal strings and numbers get equal codes."""
    _, first, code_N = np.unique(values_N, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code_N.reshape(-1)].astype(np.int64)


def _with_argument(
    ids_N: NDArray[Any], sources: Sequence[CollectedFile], items: int, *, is_guessed: bool
) -> NDArray[Any]:
    """Replace guessed ids by the argument `ids`; ids that are not guessed must equal the argument."""
    given = [source for source in sources if source.file.kind == "arguments" and "ids" in source.file.entries]
    if not given:
        return ids_N
    values_N = item_values(given, "ids", items)
    if values_N is not None and is_guessed:
        return values_N
    if values_N is not None and not np.array_equal(as_text(values_N), as_text(ids_N)):
        raise DataError("the argument `ids` differs from the ids in the files; pass only one of the two")
    return ids_N


def _from_arguments(
    present: Mapping[str, Any] | None, item_values: Mapping[str, Any], matrices: Matrices
) -> list[CollectedFile]:
    if present is not None and not isinstance(present, Mapping):
        raise ConfigError(f"present must be a mapping of modality to (N,) bool array, got {type(present).__name__}")
    unknown = [str(name) for name in present or {} if name not in matrices]
    if unknown:
        raise ConfigError(f"`present` has unknown keys: {', '.join(unknown)}; the modalities are {', '.join(matrices)}")
    values = {f"{MASK_PREFIXES[0]}{name}": value for name, value in (present or {}).items()}
    values |= {key: value for key, value in item_values.items() if value is not None}
    entries = {key: ArrayEntry.from_array(key, value) for key, value in values.items()}
    return [CollectedFile(None, EmbeddingFile("the arguments", "arguments", "", entries))] if entries else []
