"""`inspect`: list the content of an item table, and find broken cells."""

import html
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_integer
from unialign.data import combinations_of, random_split
from unialign.errors import ConfigError
from unialign.inspection._cells import UNITS, CellReport, check_cells
from unialign.inspection._text import summary
from unialign.io import describe_environment
from unialign.items import SPLITS, Items, broken_cell_records, content_codes, joined_groups, text_codes
from unialign.media import MediaLimits

__all__ = ["Inspection", "inspect"]

_EXAMPLES = 5
# Items with a text that more items, and a larger fraction of them, have in common are not duplicates; the text may be a
# class name.
_COMMON_ITEMS, _COMMON_FRACTION = 10, 0.05


@dataclass(frozen=True, eq=False)
class Inspection:
    """Result of `inspect`.

    Attributes:
        items: the table, with the groups that were found and, if it had no split, a split by groups.
        results: all numbers as JSON values.
        broken: one mapping per broken cell, with `modality`, `cell` (place), `source` (the cell as JSON), `items` (up
            to 5 names), `count` (number of items), `code` and `detail`.
    """

    items: Items
    results: dict[str, Any]
    broken: list[dict[str, Any]]

    @property
    def leaking_groups(self) -> int:
        """Number of groups with items in more than one part of the given split."""
        return int(self.results["groups"]["crossing"])

    def text(self) -> str:
        """Return a summary for a terminal."""
        return summary(self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        return self.results

    def __repr__(self) -> str:
        return f"Inspection({self.items!r}, {len(self.broken)} broken cells)"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text())}</pre>"


def inspect(
    source: Items | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    decode: int | None = 200,
    hash: bool = False,
    limits: MediaLimits | None = None,
    seed: int = 0,
    **options: Any,
) -> Inspection:
    """Count items, cells and combinations of modalities, and find broken cells, duplicates and leaking groups.

    Every file is opened; worker processes decode a random sample. Items with equal texts (ignoring case and final
    punctuation) or, with `hash`, equal files, are joined into groups, which keep near-duplicates in one part of a
    split. A text shared by more than 10 items and more than 5 % of the items is not used for groups.

    Args:
        source: an item table, or a source for `Items.open`.
        decode: number of cells of each modality to decode; None decodes all.
        hash: whether to read all files to find equal ones.
        limits: limits on the size of media.
        seed: seed of the sample and of the suggested split.
        options: options of `Items.open`.

    Raises:
        ConfigError: an option is invalid, or options are given for a table.
        DataError: see `Items.open`; or the machine or file system failed, even after several attempts.
        MissingDependencyError: decoding needs a package that is not installed.
    """
    if decode is not None:
        check_integer("decode", decode, low=0)
    check_integer("seed", seed, low=0)
    if isinstance(source, Items) and options:
        raise ConfigError(f"{min(options)!r} is an option of Items.open, but an item table was given; omit it")
    started = time.perf_counter()
    items = source if isinstance(source, Items) else Items.open(source, **options)
    limits = MediaLimits() if limits is None else limits
    reports = check_cells(items, decode=decode, limits=limits, seed=seed)
    broken = [row for name, report in reports.items() for row in _broken_rows(items, name, report)]
    texts = {name: text_codes(items, name) for name, kind in items.kinds.items() if kind == "text"}
    others = [name for name, kind in items.kinds.items() if kind != "text"]
    contents = {name: content_codes(items, name) for name in others} if hash else {}
    shared = {name: reports[name].index_N for name in others}
    common = {name: _common(code_N) for name, code_N in texts.items()}
    joining = {name: np.where(common[name], -1, code_N) for name, code_N in texts.items()}
    group_N = joined_groups(
        [items.groups, items.ids, *joining.values(), *contents.values(), *shared.values()], len(items)
    )
    table = items.with_groups(_group_names(items, group_N))
    split_N = items.split
    if not items.has_split:
        split_N = random_split(len(items), groups=group_N, seed=seed) if len(items) else split_N
        table = table.with_split(split_N)
    results = {
        "schema": 1,
        "environment": describe_environment(),
        "data": {
            "name": items.name,
            "items": len(items),
            "fingerprint": items.fingerprint,
            "license": items.license,
            "notes": list(items.notes),
        },
        "modalities": {name: _modality(items, name, report) for name, report in reports.items()},
        "combinations": _combinations(items),
        "duplicates": {name: _duplicates(code_N) for name, code_N in {**texts, **contents}.items()},
        "common_texts": {name: _common_texts(items, texts[name], mask_N) for name, mask_N in common.items()},
        "hashed": hash,
        "groups": _groups(items, group_N, split_N)
        | {"largest_by": _cause(group_N, {"groups": items.groups, "ids": items.ids, **shared, **joining, **contents})},
        "split": _split(items, split_N),
        "labels": _labels(items),
        "seconds": time.perf_counter() - started,
    }
    return Inspection(table, results, broken)


def _modality(items: Items, name: str, report: CellReport) -> dict[str, Any]:
    kind = items.kinds[name]
    return {
        "kind": kind,
        "present": int(items.present(name).sum()),
        "cells": len(report.cells),
        "bytes": report.bytes,
        "broken": report.codes,
        "decoded": report.decoded,
        "unit": UNITS[kind],
        "quartiles": report.quartiles,
        "silent": report.silent,
        "blank": report.blank,
    }


def _broken_rows(items: Items, modality: str, report: CellReport) -> list[dict[str, Any]]:
    broken = ((number, *report.broken[number]) for number in sorted(report.broken))
    return list(broken_cell_records(modality, items.keys, report.cells, report.index_N, broken))


def _combinations(items: Items) -> list[dict[str, Any]]:
    if not len(items):
        return []
    return combinations_of(np.stack([items.present(name) for name in items.modalities], axis=1), items.modalities)


def _common(code_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the items whose text is shared by too many items to indicate duplicates."""
    counts = np.bincount(code_N[code_N >= 0], minlength=1)
    return (code_N >= 0) & (counts[code_N] > max(_COMMON_ITEMS, _COMMON_FRACTION * len(code_N)))


def _common_texts(items: Items, code_N: NDArray[np.int64], common_N: NDArray[np.bool_]) -> dict[str, Any]:
    codes, first_n = np.unique(code_N[common_N], return_index=True)
    names = [str(items.keys[row]) for row in np.flatnonzero(common_N)[np.sort(first_n)][:_EXAMPLES]]
    return {"texts": len(codes), "items": int(common_N.sum()), "examples": names}


def _cause(group_N: NDArray[np.int64], codes: Mapping[str, NDArray[np.int64]]) -> str | None:
    """Return the name of the values that join most items of the largest group, or None if no items are joined."""
    sizes = np.bincount(group_N, minlength=1)
    if sizes.max(initial=0) < 2:
        return None
    rows = np.flatnonzero(group_N == sizes.argmax())
    largest = {
        name: int(np.bincount(code_N[rows][code_N[rows] >= 0], minlength=1).max()) for name, code_N in codes.items()
    }
    return max(largest, key=lambda name: largest[name])


def _duplicates(code_N: NDArray[np.int64]) -> dict[str, int]:
    counts = np.bincount(code_N[code_N >= 0])
    return {"distinct": len(counts), "items": int(counts[counts > 1].sum()), "largest": int(counts.max(initial=0))}


def _groups(items: Items, group_N: NDArray[np.int64], split_N: NDArray[np.int8]) -> dict[str, Any]:
    _, code_N, sizes = np.unique(group_N, return_inverse=True, return_counts=True)
    given_N = split_N >= 0
    pairs = np.unique(np.stack([code_N[given_N], split_N[given_N].astype(np.int64)]), axis=1)[0]
    groups, parts = np.unique(pairs, return_counts=True)
    crossing = groups[parts > 1]
    first = np.unique(code_N, return_index=True)[1]
    return {
        "count": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "crossing": len(crossing),
        "examples": [str(items.keys[first[group]]) for group in crossing[:_EXAMPLES]],
    }


def _split(items: Items, split_N: NDArray[np.int8]) -> dict[str, Any]:
    counts: Mapping[str, int] = {name: int((split_N == code).sum()) for code, name in enumerate(SPLITS)}
    by_modality = {
        name: {part: int((items.present(name) & (split_N == code)).sum()) for code, part in enumerate(SPLITS)}
        for name in items.modalities
    }
    return {"given": items.has_split, "items": counts, "modalities": by_modality, "none": int((split_N < 0).sum())}


def _labels(items: Items) -> dict[str, Any]:
    counts = np.bincount(items.labels[items.labels >= 0], minlength=len(items.label_names))
    order = np.argsort(-counts, kind="stable")
    largest = {items.label_names[code]: int(counts[code]) for code in order[:_EXAMPLES]}
    return {"classes": len(items.label_names), "unlabeled": int((items.labels < 0).sum()), "largest": largest}


def _group_names(items: Items, group_N: NDArray[np.int64]) -> list[str]:
    """Return the group of each item: the name of the group's first item, or "" for an item without duplicates."""
    sizes = np.bincount(group_N, minlength=len(items))
    return [str(items.keys[group]) if sizes[group] > 1 else "" for group in group_N.tolist()]
