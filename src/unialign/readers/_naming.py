"""Find the matrices of several files and give them unique names."""

from collections import Counter
from collections.abc import Sequence

from unialign._checks import has_surrogate, suggestion
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.readers._entry import ArrayEntry, repeated
from unialign.readers._keys import ITEM_KEYS, CollectedFile, contents, is_item_key, mask_prefix

__all__ = ["Matrices", "find_matrices"]

Matrices = dict[str, tuple[CollectedFile, ArrayEntry]]

# Generic keys, replaced by the file name.
_GENERIC = frozenset(
    {"", "arr_0", "array", "data", "emb", "embedding", "embeddings", "features", "feats", "tensor", "vectors", "x", "z"}
)


def find_matrices(sources: Sequence[CollectedFile], chosen: Sequence[str] | None) -> tuple[Matrices, list[str]]:
    """Return modality -> (source, entry) in the order of the sources, and the ignored entries with the reason."""
    candidates: list[tuple[str, CollectedFile, ArrayEntry]] = []
    ignored: list[str] = []
    for name in repeated(source.given for source in sources if source.given):
        labels = " and ".join(source.file.label for source in sources if source.given == name)
        raise ConfigError(f"the name {name!r} was given to {labels}; give each file another name")
    for source in sources:
        file = source.file
        own: list[ArrayEntry] = []
        for key, entry in file.entries.items():
            if is_item_key(key, entry) or mask_prefix(key) or (chosen is None and not entry.is_default):
                continue
            if entry.skipped and not (entry.dtype == "object" and (chosen is None or key in chosen)):
                ignored.append(f"{source.place(entry)} ({entry.skipped})")
            elif len(entry.shape) < 2 and entry.dtype != "object":
                name = key or file.stem
                hint = "" if name in ITEM_KEYS else suggestion(name, ITEM_KEYS)
                ignored.append(f"{source.place(entry)} (shape {entry.shape}, {entry.dtype}{hint})")
            else:
                own.append(entry)
        if source.given is not None and len(own) != 1:
            raise ConfigError(
                f"{source.given}={file.label} names one matrix, but the file has {len(own)} ({contents(file)}); give "
                "the file without a name, and choose with --modalities"
            )
        by_file = len(own) == 1 and own[0].key in _GENERIC and file.kind not in ("memory", "store")
        candidates += [(source.given or (file.stem if by_file else entry.key), source, entry) for entry in own]
    matrices = _unique_names(candidates)
    if chosen is not None:
        unknown = [name for name in chosen if name not in matrices]
        if unknown or len(set(chosen)) < len(chosen) or not chosen:
            known = ", ".join(matrices) or "none"
            raise ConfigError(f"modalities {', '.join(chosen)} must be different ones of {known}; unknown: {unknown}")
        matrices = {name: matrices[name] for name in chosen}
    for name, (source, entry) in matrices.items():
        _check_matrix(name, source, entry)
    return matrices, ignored if chosen is None else []


def _unique_names(candidates: list[tuple[str, CollectedFile, ArrayEntry]]) -> Matrices:
    """Keep unique and given names; rename others to the file name, or to `FILE.NAME` if it has several matrices."""
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
                advice = "the file was given twice, give it once"
            elif not alone:
                advice = "rename one of the files, whose names tell their matrices apart"
            raise ConfigError(f"two matrices are called {unique!r} ({other.label} and {file.label}); {advice}")
        matrices[unique] = (source, entry)
    return matrices


def _check_matrix(name: str, source: CollectedFile, entry: ArrayEntry) -> None:
    where = f"{name!r} ({source.place(entry)})"
    if has_surrogate(name):
        raise DataError(f"{source.file.label}: the name {name!r} cannot be encoded as UTF-8; rename the array")
    if entry.dtype == "object":
        raise DataError(f"{entry.skipped}; save plain arrays, or leave it out with --modalities")
    if not entry.is_floating:
        raise ShapeError(
            f"{where} is {entry.dtype} of shape {entry.shape}; expected floats: turn quantized codes back into "
            "floats, or leave it out with --modalities"
        )
    if len(entry.shape) != 2:
        raise ShapeError(
            f"{where} has shape {entry.shape}; expected (items, dim), one pooled vector an item: average over "
            "tokens or frames first, or leave it out with --modalities"
        )
    if 0 in entry.shape:
        raise ShapeError(f"{where} has shape {entry.shape}; expected at least one row and one column")
