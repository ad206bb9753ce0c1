"""Find the matrices of several files and assign unique names to them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from unialign._checks import has_surrogate, suggestion
from unialign._plain_text import count
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.readers._entry import ArrayEntry, repeated
from unialign.readers._keys import (
    ITEM_KEYS,
    CollectedFile,
    contents,
    is_item_key,
    is_matrix,
    mask_prefix,
    plain_key,
)
from unialign.readers._quantized import is_quantized, quantized_entry

__all__ = ["Matrices", "find_matrices"]

# Maximum number of modalities that are assumed to be stacked in one array.
_MAX_STACKED = 8

_KINDS = {"U": "text", "S": "text", "i": "integer", "u": "integer", "b": "bool", "f": "number", "M": "date"}

Matrices = dict[str, tuple[CollectedFile, ArrayEntry]]

# Generic keys, which are replaced by the file name.
_GENERIC = frozenset(
    {"", "arr_0", "array", "data", "emb", "embedding", "embeddings", "features", "feats", "tensor", "vectors", "x", "z"}
)


def find_matrices(
    sources: Sequence[CollectedFile], chosen: Sequence[str] | None
) -> tuple[Matrices, list[str], list[str]]:
    """Return modality -> (source, entry), the ignored entries with reasons, and notes."""
    for name in repeated(source.given for source in sources if source.given):
        labels = " and ".join(source.file.label for source in sources if source.given == name)
        raise ConfigError(f"the name {name!r} was given to {labels}; give each file a different name")
    candidates: list[tuple[str, CollectedFile, ArrayEntry]] = []
    left: list[tuple[CollectedFile, ArrayEntry]] = []
    for source in sources:
        own, others = _split(source, chosen)
        left += [(source, entry) for entry in others]
        if source.given is not None and len(own) != 1:
            raise ConfigError(
                f"{source.given}={source.file.label} names one matrix, but the file has {len(own)} "
                f"({', '.join(entry.key for entry in own) or contents(source.file)}); pass the file without a name, "
                "and choose a matrix with --modalities"
            )
        candidates += [(source.given or _plain_name(source, entry, len(own)), source, entry) for entry in own]
    matrices = _unique_names(candidates)
    if chosen is not None:
        matrices = _select(matrices, left, chosen)
    elif not matrices:
        for source, entry in left:
            if len(entry.shape) > 1 or entry.dtype == "object":
                _raise_problem(source.place(entry), entry)
    notes = []
    for name, (source, entry) in matrices.items():
        _check_name(name, source)
        if is_quantized(entry):
            entry, how = quantized_entry(entry)
            notes.append(f"{source.place(entry)}: {how}")
            matrices[name] = (source, entry)
    ignored = [f"{source.place(entry)} ({_reason(source, entry)})" for source, entry in left]
    return matrices, ignored if chosen is None else [], notes


def _split(source: CollectedFile, chosen: Sequence[str] | None) -> tuple[list[ArrayEntry], list[ArrayEntry]]:
    own: list[ArrayEntry] = []
    others: list[ArrayEntry] = []
    for key, entry in source.file.entries.items():
        if (is_item_key(key, entry) and (entry.dtype != "object" or key == "ids")) or mask_prefix(key):
            continue
        if chosen is None and not entry.is_default:
            continue
        usable = is_matrix(entry) and (entry.shape[1] > 1 or chosen is not None or source.given is not None)
        (own if usable else others).append(entry)
    return own, others


def _plain_name(source: CollectedFile, entry: ArrayEntry, count: int) -> str:
    file = source.file
    by_file = count == 1 and entry.key.lower() in _GENERIC and file.kind not in ("memory", "store")
    if by_file or entry.key == "":
        return file.stem
    # If the last component of an HDF5 path is unique, use it as the name.
    last = entry.key.rpartition("/")[2]
    if file.kind != "hdf5" or last == entry.key:
        return entry.key
    alone = [other for other in file.entries.values() if is_matrix(other) and other.key.rpartition("/")[2] == last]
    return last if len(alone) == 1 else entry.key.replace("/", ".")


def _select(matrices: Matrices, left: Sequence[tuple[CollectedFile, ArrayEntry]], chosen: Sequence[str]) -> Matrices:
    found: Matrices = {}
    unknown = []
    for name in chosen:
        if name in matrices:
            found[name] = matrices[name]
            continue
        keyed = [
            unique for unique, (s, e) in matrices.items() if plain_key(name, s.file) == e.key or name == s.place(e)
        ]
        if len(keyed) == 1:
            found[keyed[0]] = matrices[keyed[0]]
            continue
        for source, entry in left:
            if plain_key(name, source.file) == entry.key and (entry.skipped or len(entry.shape) != 1):
                _raise_problem(source.place(entry), entry)
        unknown.append(name)
    if unknown or len(found) < len(chosen) or not chosen:
        known = ", ".join(matrices) or "none"
        raise ConfigError(
            f"modalities {', '.join(chosen)} must be distinct names among {known}; unknown: {unknown}"
            + "".join(suggestion(name, matrices) for name in unknown[:1])
        )
    return found


def _unique_names(candidates: list[tuple[str, CollectedFile, ArrayEntry]]) -> Matrices:
    """Name other matrices after the file, or `FILE.NAME` if the file has several."""
    uses = Counter(name for name, _, _ in candidates)
    matrices_in = Counter(source for _, source, _ in candidates)
    matrices: Matrices = {}
    for name, source, entry in candidates:
        file, alone = source.file, matrices_in[source] == 1
        unique = name if uses[name] == 1 or source.given else file.stem if alone else f"{file.stem}.{name}"
        if unique in matrices:
            other = matrices[unique][0].file
            advice = f"name them: first={other.label} second={file.label}"
            if other.label == file.label:
                advice = "the file was given twice; pass it only once"
            elif not alone:
                advice = "rename one of the files, since matrices are named after their files"
            raise ConfigError(f"two matrices are called {unique!r} ({other.label} and {file.label}); {advice}")
        matrices[unique] = (source, entry)
    return matrices


def _check_name(name: str, source: CollectedFile) -> None:
    if has_surrogate(name):
        raise DataError(f"{source.file.label}: the name {name!r} cannot be encoded as UTF-8; rename the array")


def _reason(source: CollectedFile, entry: ArrayEntry) -> str:
    if entry.dtype == "object":
        return "Python objects (a pickle), which are never read; save numpy.stack(list(x)) or x.astype(str)"
    if entry.skipped:
        return entry.skipped
    name = entry.key or source.file.stem
    if len(entry.shape) < 2:
        hint = "" if name in ITEM_KEYS else suggestion(name, ITEM_KEYS)
        what = _KINDS.get(entry.kind, entry.dtype)
        return (count(entry.shape[0], what) if entry.shape else f"a single {what}") + hint
    return f"{entry.dtype} of shape {entry.shape}: {problem_of(entry)}"


def _raise_problem(place: str, entry: ArrayEntry) -> None:
    if entry.dtype == "object":
        raise DataError(f"{entry.skipped}; save plain arrays, or exclude it with --modalities")
    if entry.skipped:
        raise DataError(f"{place} cannot be used: {entry.skipped}")
    raise ShapeError(
        f"{place} is {entry.dtype} of shape {entry.shape}; expected floats of shape (items, dim): {problem_of(entry)}"
    )


def problem_of(entry: ArrayEntry) -> str:
    shape = entry.shape
    if 0 in shape:
        return "it is empty, expected at least one row and one column"
    if len(shape) == 2 and entry.kind == "b":
        return "a mask is not an embedding; mark absent rows with an (N,) bool array present.NAME for each modality"
    if len(shape) == 2 and (entry.is_floating or np.dtype(entry.dtype).itemsize == 1):
        return "one number per item is not an embedding"
    if entry.kind == "c":
        return "complex numbers are not an embedding; save numpy.hstack([x.real, x.imag])"
    if entry.kind not in ("i", "u", "b") and not entry.is_floating:
        return "its entries are not numbers"
    if not entry.is_floating:
        return "integers such as token ids or codes are not an embedding; quantized codes must be int8 or uint8"
    if len(shape) == 3 and shape[0] <= _MAX_STACKED and shape[1] > 2 * shape[0]:
        return (
            f"perhaps it contains {shape[0]} modalities of {shape[1]:,} items; save them as separate arrays, "
            f"numpy.savez('x.npz', a=x[0], b=x[1]), or, if it contains {shape[0]} items with {shape[1]:,} tokens each, "
            "save x.mean(1)"
        )
    axes = ", ".join(map(str, range(1, len(shape) - 1)))
    if len(shape) == 3:
        return f"it has {shape[1]:,} vectors per item; average over tokens or frames, x.mean(1), or select one, x[:, 0]"
    return f"it contains feature maps; average over positions to get (items, dim), for example x.mean(({axes}))"
