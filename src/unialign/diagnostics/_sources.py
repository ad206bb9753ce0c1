"""Sources of any kind become named modalities of N items: names, shapes and pairing are checked here.

Shapes: `N` items, `D` width.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import has_surrogate
from unialign.data import EmbeddingStore, list_datasets, load_dataset
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.io import checked_path
from unialign.readers import Entry, File, MatchedRows, Rows, open_file, store_file

__all__ = ["Material", "Source", "gather"]

Source = str | os.PathLike[str] | EmbeddingStore | Mapping[str, Any]

# Keys that say where the rows are and not what they are.
_MASKS = ("present.", "present/")
_ROWS = ("ids", "labels")
# What messages call masks and ids that were not in a source.
_ARGUMENTS = "the arguments"
# Keys of a matrix that name nothing: the file's name says more.
_NAMELESS = frozenset(
    {"", "arr_0", "array", "data", "emb", "embedding", "embeddings", "features", "feats", "tensor", "vectors", "x", "z"}
)


@dataclass(frozen=True)
class Modality:
    """One named matrix: its rows, which of them exist, and where it came from.

    `order_N` says where in the file each item's row is, where ids put a file into another order; else None.
    """

    rows: Rows
    present_N: NDArray[np.bool_]
    label: str
    key: str
    kind: str
    order_N: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Material:
    """What is examined.

    Attributes:
        modalities: name -> rows and presence, at least one.
        items: N.
        ids_N: codes of the items' ids; None where none were given.
        labels_N: class codes, -1 for none; None where none were given.
        kinds: the kinds of source, each once.
        ignored: what was left alone, in words.
        masked: modalities whose presence is given.
        matched: files whose rows were put into the order of the first one's ids.
        name: what the data is called.
    """

    modalities: dict[str, Modality]
    items: int
    ids_N: NDArray[np.int64] | None
    labels_N: NDArray[np.int64] | None
    kinds: tuple[str, ...]
    ignored: tuple[str, ...]
    name: str
    masked: frozenset[str] = frozenset()
    matched: tuple[str, ...] = ()


def gather(
    sources: Source | Sequence[Source],
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
) -> Material:
    """Open the sources and pair them.

    Args:
        sources: a path, `"NAME=PATH"`, a shipped data set's name, an `EmbeddingStore`, or a mapping of name to (N, D)
            array, in which `ids`, `labels`, `present.NAME` and `present/NAME` have their meaning; or several of them.
        modalities: the names to examine; None: all matrices (of a store: its default ones).
        present, ids: masks (N,) of modalities, and (N,) ids, beside those in the sources.

    Raises:
        DataError: a source cannot be read or holds no matrix, or sources do not pair.
        ShapeError: a matrix is not (N, D) of floats, a mask or ids not (N,).
        ConfigError: unknown or repeated names.
    """
    listed = [sources] if isinstance(sources, str | os.PathLike | EmbeddingStore | Mapping) else list(sources)
    if not listed:
        raise ConfigError("name at least one file of embeddings")
    files = [_open(source) for source in listed]
    matrices, ignored = _matrices(files, modalities)
    if not matrices:
        what = "; ".join(f"{file.label}: {_contents(file)}" for _, file in files)
        raise DataError(f"found no embeddings, that is no (items, width) array of floats ({what})")
    first = next(iter(matrices))
    items = matrices[first][1].shape[0]
    for name, (file, entry) in matrices.items():
        if entry.shape[0] != items:
            raise DataError(
                f"{name!r} ({_place(file, entry)}) has {entry.shape[0]:,} rows, {first!r} ({_place(*matrices[first])}) "
                f"has {items:,}; row i of every modality must be the same item: bring them into one order and length, "
                f"and mark what is missing with a bool array present.{name}"
            )
    orders = _orders(files, items)
    files += _given(present, ids, matrices)
    masks = _masks(files, matrices, items, orders)
    if modalities is None:
        ignored += _masks_of_nothing(files, matrices)
    found = {
        name: _modality(file, entry, masks.get(name, np.ones(items, np.bool_)), orders.get(id(file)))
        for name, (file, entry) in matrices.items()
    }
    return Material(
        modalities=found,
        items=items,
        ids_N=_per_item(files, "ids", items, orders),
        labels_N=_per_item(files, "labels", items, orders),
        kinds=tuple(dict.fromkeys(file.kind for _, file in files if file.label != _ARGUMENTS)),
        ignored=tuple(ignored),
        name=", ".join(dict.fromkeys(file.stem for _, file in files if file.label != _ARGUMENTS)),
        masked=frozenset(masks),
        matched=tuple(file.label for _, file in files if id(file) in orders),
    )


def _modality(file: File, entry: Entry, present_N: NDArray[np.bool_], order_N: NDArray[np.int64] | None) -> Modality:
    rows = entry.rows() if order_N is None else MatchedRows(entry.rows(), order_N)
    return Modality(rows, present_N, file.label, entry.key, file.kind, order_N)


def _given(
    present: Mapping[str, Any] | None, ids: Any, matrices: Mapping[str, tuple[File, Entry]]
) -> list[tuple[str | None, File]]:
    """Masks and ids that the caller gave, as one more file."""
    if present is not None and not isinstance(present, Mapping):
        raise ConfigError(f"present is {type(present).__name__}, expected a mapping of modality to (N,) bool")
    unknown = [str(name) for name in present or {} if name not in matrices]
    if unknown:
        raise ConfigError(f"present names {', '.join(unknown)}; the modalities are {', '.join(matrices)}")
    entries = {f"{_MASKS[0]}{name}": value for name, value in (present or {}).items()}
    if ids is not None:
        entries["ids"] = ids
    if not entries:
        return []
    return [(None, File(_ARGUMENTS, "memory", "", {key: _in_memory(key, value) for key, value in entries.items()}))]


def _orders(files: Sequence[tuple[str | None, File]], items: int) -> dict[int, NDArray[np.int64]]:
    """`id` of a file -> (N,) places in it of the first file's ids, where it has the same unique ones elsewhere."""
    orders: dict[int, NDArray[np.int64]] = {}
    first: NDArray[Any] | None = None
    for _, file in files:
        entry = file.entries.get("ids")
        if entry is None or entry.shape != (items,) or entry.dtype in ("", "object"):
            continue
        values = entry.load()
        if first is None:
            first, place_N = values, np.argsort(values, kind="stable")
            if len(np.unique(first)) < items:
                return {}
        elif first.dtype.kind == values.dtype.kind and not np.array_equal(first, values):
            own_N = np.argsort(values, kind="stable")
            if np.array_equal(first[place_N], values[own_N]):
                order_N = np.empty(items, np.int64)
                order_N[place_N] = own_N
                orders[id(file)] = order_N
    return orders


def _open(source: Source) -> tuple[str | None, File]:
    """The name the user gave, and the file."""
    if isinstance(source, EmbeddingStore):
        return None, store_file(source, source.name)
    if isinstance(source, Mapping):
        return None, File("memory", "memory", "arrays", {str(k): _in_memory(str(k), v) for k, v in source.items()})
    text = os.fspath(source)
    if isinstance(text, str) and has_surrogate(text):
        raise DataError(f"{text!r} is no text that UTF-8 can write, as a report has to; rename the file or the folder")
    given, equals, rest = text.partition("=")
    if equals and given and os.sep not in given and not os.path.exists(text):
        return given, open_file(checked_path(rest, f"the file of {given!r}", error=DataError))
    path = checked_path(source, "the file", error=DataError)
    if text in list_datasets() and not path.is_file() and not (path / "store.json").exists():
        return None, store_file(load_dataset(text), text)
    return None, open_file(path)


def _in_memory(key: str, value: Any) -> Entry:
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ShapeError(f"{key!r} is {type(value).__name__} of objects; expected an array of floats")
    return Entry.of_array(key, array)


def _matrices(
    files: Sequence[tuple[str | None, File]], chosen: Sequence[str] | None
) -> tuple[dict[str, tuple[File, Entry]], list[str]]:
    """Modality -> where it is, in the order of the files; and what else there was."""
    candidates: list[tuple[str, File, Entry]] = []
    ignored: list[str] = []
    for given, file in files:
        own: list[Entry] = []
        for key, entry in file.entries.items():
            if key in _ROWS or key.startswith(_MASKS):
                continue
            if file.default is not None and chosen is None and key not in file.default:
                continue
            if entry.skipped and not (entry.dtype == "object" and (chosen is None or key in chosen)):
                ignored.append(f"{_place(file, entry)} ({entry.skipped})")
            elif len(entry.shape) < 2 and entry.dtype != "object":
                ignored.append(f"{_place(file, entry)} (shape {entry.shape}, {entry.dtype})")
            else:
                own.append(entry)
        if given is not None and len(own) != 1:
            raise ConfigError(
                f"{given}={file.label} names one matrix, but the file has {len(own)} ({_contents(file)}); give the "
                "file without a name, and choose with --modalities"
            )
        single = len(own) == 1 and own[0].key in _NAMELESS and file.kind not in ("memory", "store")
        candidates += [(given or (file.stem if single else entry.key), file, entry) for entry in own]
    return _named(candidates, chosen), ignored if chosen is None else []


def _named(candidates: list[tuple[str, File, Entry]], chosen: Sequence[str] | None) -> dict[str, tuple[File, Entry]]:
    repeated = {name for name, _, _ in candidates if sum(name == other for other, _, _ in candidates) > 1}
    matrices: dict[str, tuple[File, Entry]] = {}
    for name, file, entry in candidates:
        alone = sum(other is file for _, other, _ in candidates) == 1
        unique = name if name not in repeated else file.stem if alone else f"{file.stem}.{name}"
        if unique in matrices:
            other = matrices[unique][0]
            advice = f"name them: first={other.label} second={file.label}"
            if other.label == file.label:
                advice = "the file is named twice, name it once"
            elif not alone:
                advice = "rename one of the files, whose names tell their matrices apart"
            raise ConfigError(f"two matrices are called {unique!r} ({other.label} and {file.label}); {advice}")
        matrices[unique] = (file, entry)
    if chosen is not None:
        unknown = [name for name in chosen if name not in matrices]
        if unknown or len(set(chosen)) < len(chosen) or not chosen:
            known = ", ".join(matrices) or "none"
            raise ConfigError(f"modalities {', '.join(chosen)} must be of {known}, each once; unknown: {unknown}")
        matrices = {name: matrices[name] for name in chosen}
    for name, (file, entry) in matrices.items():
        _check(name, file, entry)
    return matrices


def _check(name: str, file: File, entry: Entry) -> None:
    place = _place(file, entry)
    if has_surrogate(name):
        raise DataError(f"{file.label}: {name!r} is no text that UTF-8 can write, as a report has to; rename the array")
    if entry.dtype == "object":
        raise DataError(f"{entry.skipped}; save plain arrays, or leave it out with --modalities")
    if not entry.floating:
        raise ShapeError(
            f"{name!r} ({place}) is {entry.dtype} of shape {entry.shape}; expected floats: turn quantised codes back "
            "into floats, or leave it out with --modalities"
        )
    if len(entry.shape) != 2:
        raise ShapeError(
            f"{name!r} ({place}) has shape {entry.shape}; expected (items, width), one pooled vector an item: average "
            "over tokens or frames first, or leave it out with --modalities"
        )
    if 0 in entry.shape:
        raise ShapeError(f"{name!r} ({place}) has shape {entry.shape}; expected at least one row and one column")


def _masks(
    files: Sequence[tuple[str | None, File]],
    matrices: Mapping[str, tuple[File, Entry]],
    items: int,
    orders: Mapping[int, NDArray[np.int64]],
) -> dict[str, NDArray[np.bool_]]:
    masks: dict[str, NDArray[np.bool_]] = {}
    for given, file in files:
        for key, entry in file.entries.items():
            prefix = next((p for p in _MASKS if key.startswith(p)), None)
            if prefix is None:
                continue
            # A file of its own may call its only mask after the key that the name given to it replaces.
            own = [n for n, (f, e) in matrices.items() if f is file and e.key == key[len(prefix) :]]
            name = own[0] if own else given or key[len(prefix) :]
            if name not in matrices:
                continue
            if entry.shape != (items,) or np.dtype(entry.dtype).kind != "b":
                raise ShapeError(
                    f"{_place(file, entry)} is {entry.dtype} of shape {entry.shape}; expected bool of shape ({items},)"
                )
            masks[name] = masks.get(name, True) & np.asarray(_loaded(file, entry, orders), dtype=np.bool_)
            if not masks[name].any():
                raise DataError(f"{_place(file, entry)} says that {name!r} has no row at all; leave it out")
    return masks


def _masks_of_nothing(
    files: Sequence[tuple[str | None, File]], matrices: Mapping[str, tuple[File, Entry]]
) -> list[str]:
    """Masks without an array of their name: a slip of the pen would make absent rows present."""
    keys = {key for _, file in files for key in file.entries} | set(matrices)
    return [
        f"{_place(file, entry)} (no array of that name)"
        for given, file in files
        for key, entry in file.entries.items()
        if key.startswith(_MASKS) and given is None and key[len(_MASKS[0]) :] not in keys
    ]


def _loaded(file: File, entry: Entry, orders: Mapping[int, NDArray[np.int64]]) -> NDArray[Any]:
    """An array of one value an item, in the order of the items."""
    order_N = orders.get(id(file))
    return entry.load() if order_N is None else entry.load()[order_N]


def _per_item(
    files: Sequence[tuple[str | None, File]], key: str, items: int, orders: Mapping[int, NDArray[np.int64]]
) -> NDArray[np.int64] | None:
    """Codes of `ids` or `labels`; several files must agree."""
    found: tuple[File, NDArray[Any]] | None = None
    for _, file in files:
        entry = file.entries.get(key)
        if entry is None:
            continue
        place = _place(file, entry)
        if entry.shape != (items,) or entry.dtype in ("", "object") or np.dtype(entry.dtype).kind not in "iuUS":
            what = entry.skipped or f"{entry.dtype} of shape {entry.shape}"
            raise ShapeError(f"{place} is {what}; expected integers or text, ({items},)")
        values = _loaded(file, entry, orders)
        if found is None:
            found = (file, values)
        elif not np.array_equal(found[1], values):
            same = np.array_equal(np.sort(found[1]), np.sort(values)) if found[1].dtype == values.dtype else False
            raise DataError(
                f"{key} in {found[0].label} and {file.label} differ"
                + (": they are the same in another order, and not each one once; sort both files by them" if same
                   else "; row i of every file must be the same item")
            )  # fmt: skip
    if found is None:
        return None
    values = found[1]
    _, first, code_N = np.unique(values, return_index=True, return_inverse=True)
    # By first appearance: numbers and texts that say the same get the same codes, and so the same resamples.
    codes = np.argsort(np.argsort(first))[code_N.reshape(-1)].astype(np.int64)
    # Negative: unlabelled, as in a store.
    return np.where(values < 0, -1, codes) if key == "labels" and values.dtype.kind == "i" else codes


def _place(file: File, entry: Entry) -> str:
    return f"{file.label}: {entry.key}" if entry.key else file.label


def _contents(file: File) -> str:
    shown = [f"{e.key or 'one array'} {e.shape} {e.dtype or e.skipped}" for e in file.entries.values()]
    return ", ".join(_first(shown, 6)) or "nothing"


def _first(words: Iterable[str], most: int) -> list[str]:
    found = list(words)
    return found if len(found) <= most else [*found[:most], f"{len(found) - most} more"]
