"""Recognize numbered part files of a modality, and concatenate them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._entry import ArrayEntry, EmbeddingFile, unreadable
from unialign.readers._keys import mask_prefix
from unialign.readers._rows import ConcatenatedRows

__all__ = ["concatenate", "group_parts", "numeric_order"]

_PART = re.compile(
    r"(?P<prefix>.*?)(?P<mark>[-_.]?(?:part|shard|chunk|batch)?[-_.]?)(?P<number>\d{1,9})(?P<of>[-_]of[-_](?P<total>\d{1,9})(?:-[0-9a-f]{8,64})?)?"
)
# Prefixes that may be followed directly by the number of the part, without a separator.
_WORDS = frozenset({"emb", "embs", "embedding", "embeddings", "vectors", "features", "feats", "data"})


# Files with these words before a number are modalities of the same items, not parts.
_ALTERNATIVES = frozenset(
    {"layer", "layers", "view", "views", "seed", "run", "fold", "epoch", "step", "head", "model", "version", "v",
     "modality", "encoder", "crop", "augmentation", "aug", "caption"}
)  # fmt: skip


@dataclass(frozen=True)
class _Part:
    prefix: str
    number: int
    total: int | None
    is_marked: bool


def numeric_order(path: Path) -> tuple[Any, ...]:
    """Order `x_2` before `x_10`."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", str(path)))


def group_parts(paths: Sequence[Path], *, is_folder: bool = False) -> list[tuple[str, list[Path]]]:
    """Return (name, files) of each group of part files, and ("", [file]) of other files."""
    groups: dict[object, list[tuple[_Part | None, Path]]] = {}
    for path in paths:
        part = _part(path)
        key = (path.parent, path.suffix, part.prefix, part.total) if part is not None else path
        groups.setdefault(key, []).append((part, path))
    found: list[tuple[str, list[Path]]] = []
    for members in groups.values():
        files = [path for _, path in members]
        parts = [part for part, _ in members if part is not None]
        if is_folder and len(parts) == len(members):
            _check_gaps(parts, files)
        if len(parts) < len(members) or not _are_parts(parts, is_folder=is_folder):
            found += [("", [path]) for path in files]
            continue
        _check_complete(parts, files)
        order = np.argsort([part.number for part in parts], kind="stable")
        found.append((parts[0].prefix or files[0].parent.name, [files[i] for i in order]))
    return found


def concatenate(name: str, files: Sequence[EmbeddingFile]) -> EmbeddingFile:
    if len(files) == 1:
        file, path = files[0], Path(files[0].label)
        part = _part(path)
        if part is not None and part.total is not None and part.total > 1:
            pattern = path.with_name(f"{part.prefix}*{path.suffix}")
            file = replace(file, notes=(*file.notes, f"{path} is one of {part.total:,} parts; '{pattern}' reads all"))
        return replace(file, stem=name or file.stem)
    first, last = files[0], files[-1]
    label = f"{first.label} ... {Path(last.label).name}"
    keys = dict.fromkeys(key for file in files for key in file.entries)
    entries = {key: _concatenated(key, files) for key in keys}
    notes = [f"{len(files)} part files are concatenated: {first.label} to {Path(last.label).name}"]
    return EmbeddingFile(label, first.kind, name, entries, (*notes, *dict.fromkeys(note for note in first.notes)))


def _part(path: Path) -> _Part | None:
    match = _PART.fullmatch(path.name.removesuffix(path.suffix))
    if match is None:
        return None
    total = None if match["total"] is None else int(match["total"])
    prefix, mark = match["prefix"], match["mark"]
    # Files on the Hub may have an upload id after the total. Years such as 2019 are not part numbers.
    is_marked = total is not None or mark != "" or prefix.lower() in _WORDS
    return _Part(prefix, int(match["number"]), total, is_marked)


def _is_alternative(prefix: str) -> bool:
    """Return whether the numbers denote alternatives for the same items, such as layers, rather than parts."""
    return re.split(r"[-_. ]", prefix.lower())[-1] in _ALTERNATIVES


def _are_parts(parts: Sequence[_Part], *, is_folder: bool) -> bool:
    if parts[0].total is not None:
        return True
    if _is_alternative(parts[0].prefix):
        return False
    numbers = sorted(part.number for part in parts)
    if numbers[0] not in (0, 1) or numbers[-1] - numbers[0] != len(numbers) - 1:
        return False
    if is_folder:
        return len(parts) > 1 or parts[0].is_marked
    return len(parts) > 1 and all(part.is_marked and part.prefix != "" for part in parts)


def _check_gaps(parts: Sequence[_Part], files: Sequence[Path]) -> None:
    """Raise DataError for a missing part in a folder such as `img_emb/img_emb_0.npy`, written by clip-retrieval."""
    numbers = {part.number for part in parts}
    last = max(numbers)
    if (
        parts[0].prefix != files[0].parent.name
        or parts[0].total is not None
        or not 1 < len(numbers) <= last < 2 * len(numbers)
    ):
        return
    missing = sorted(set(range(1, last)) - numbers)
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{files[0].parent}: of the parts up to {parts[0].prefix}_{last}, these are missing: {listed}; create "
            "them again, or renumber the others without gaps"
        )


def _check_complete(parts: Sequence[_Part], files: Sequence[Path]) -> None:
    total = parts[0].total
    numbers = {part.number for part in parts}
    if total is None or total > 1_000_000:
        return
    first = 1 if 0 not in numbers and total in numbers else 0
    missing = [number for number in range(first, first + total) if number not in numbers]
    if missing and len(files) > 1:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{files[0].parent}: only {len(files)} of {total} parts of {parts[0].prefix!r} are given; missing parts: "
            f"{listed}; pass all parts, or a single part"
        )


def _concatenated(key: str, files: Sequence[EmbeddingFile]) -> ArrayEntry:
    entries = [file.entries.get(key) for file in files]
    if mask_prefix(key):
        # Tables list a mask only if some rows are absent.
        return _concatenated_mask(key, files)
    found = [entry for entry in entries if entry is not None]
    if any(entry.skipped or not entry.shape for entry in found):
        return next(entry for entry in found if entry.skipped or not entry.shape)
    lacking = [file.label for file, entry in zip(files, entries, strict=True) if entry is None]
    if lacking:
        return ArrayEntry.ignored(key, f"the part {lacking[0]} does not contain this array")
    for file, entry in zip(files, found, strict=True):
        if entry.shape[1:] != found[0].shape[1:]:
            raise ShapeError(
                f"{file.label}: {key or 'the array'} has shape {entry.shape}, but {files[0].label} has "
                f"{found[0].shape}; parts of a modality must have the same dim; pass NAME=FILE for each file "
                "if these are different modalities"
            )
    shape = (sum(entry.shape[0] for entry in found), *found[0].shape[1:])
    # Use the dtype that np.concatenate would return; rows are converted chunk by chunk.
    dtype = max(
        (entry.dtype for entry in found),
        key=lambda dtype: 3 if dtype == "bfloat16" else np.dtype(dtype or "u1").itemsize,
    )
    return replace(
        found[0],
        shape=shape,
        dtype=dtype,
        rows=lambda: ConcatenatedRows([entry.rows() for entry in found]),
        load=partial(_load, found),
    )


def _concatenated_mask(key: str, files: Sequence[EmbeddingFile]) -> ArrayEntry:
    name = next(key.removeprefix(prefix) for prefix in (mask_prefix(key),) if prefix)
    loads, rows = [], 0
    for file in files:
        matrix = file.entries.get(name)
        own = file.entries.get(key)
        entry = own or matrix
        if entry is None or not entry.shape:
            return ArrayEntry.ignored(key, f"the part {file.label} does not contain this array")
        count = entry.shape[0]
        rows += count
        loads.append(own.load if own is not None else partial(np.ones, count, np.bool_))
    return ArrayEntry(key, (rows,), "|b1", unreadable, lambda: np.concatenate([load() for load in loads]))


def _load(entries: Iterable[ArrayEntry]) -> NDArray[Any]:
    parts = [entry.load() for entry in entries]
    if len({part.dtype.kind in "US" for part in parts}) > 1:
        parts = [part.astype(np.str_) for part in parts]
    return np.concatenate(parts)
