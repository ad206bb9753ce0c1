"""Combine the ids, groups, labels and names of the items of several stores.

Shapes: `n` items of one store, `N` items of all stores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data._item_identity import item_ids
from unialign.data._item_values import validate_values
from unialign.data._store import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.readers import first_appearance_codes

__all__ = [
    "check_shared",
    "combined_groups",
    "combined_ids",
    "combined_labels",
    "combined_names",
    "prefixed_keys",
    "shared_keys",
]

Codes = NDArray[np.int64]


def check_shared(sources: Mapping[str, EmbeddingStore]) -> None:
    """Raise ConfigError unless the ids of all stores are comparable, and DataError for a group that crosses splits."""
    found = {name: item_ids(store) for name, store in sources.items()}
    for name, ids in found.items():
        if ids is None:
            raise ConfigError(
                f"shared_ids=True needs ids in every source, but {name!r} has none, or only row numbers; write the "
                "store with `ids=`, embed a table with ids (`Items.open(..., ids=...)`, --ids-column), or omit "
                "shared_ids"
            )
    kinds = {name: isinstance(ids, tuple) for name, ids in found.items()}
    if len(set(kinds.values())) > 1:
        texts, integers = ([name for name, is_text in kinds.items() if is_text is kind] for kind in (True, False))
        raise ConfigError(
            f"shared_ids=True needs ids of one type, but {texts[0]!r} has text ids and {integers[0]!r} integers; "
            "write one of the stores again, or omit shared_ids"
        )
    split_N = np.concatenate([store.split for store in sources.values()])
    ids_N, groups_N = combined_ids(sources, shared=True), combined_groups(sources, shared=True)
    try:
        validate_values({"ids": ids_N, "groups": groups_N, "split": split_N}, len(split_N), ())
    except DataError as error:
        raise DataError(
            f"the sources with shared ids have different splits: {error}; rows are those of {' + '.join(sources)}. "
            "Give every table a split column in which items with equal ids agree, since a split that is suggested for "
            "one source does not consider the others"
        ) from None


def combined_ids(sources: Mapping[str, EmbeddingStore], *, shared: bool) -> Codes:
    if not shared:
        return _apart([store.ids for store in sources.values()])
    keys = shared_keys(sources)
    if keys is not None:
        return first_appearance_codes(np.array(keys, np.str_))
    return np.concatenate([store.ids for store in sources.values()])


def shared_keys(sources: Mapping[str, EmbeddingStore]) -> tuple[str, ...] | None:
    """Return the text ids of all items, without the prefix of a source; None if ids are integers."""
    found = [item_ids(store) for store in sources.values()]
    texts = [ids for ids in found if isinstance(ids, tuple)]
    return tuple(key for ids in texts for key in ids) if len(texts) == len(found) else None


def combined_groups(sources: Mapping[str, EmbeddingStore], *, shared: bool) -> Codes:
    """Return the groups of all items. With shared ids, groups of two sources that have an id in common are merged."""
    group_N = _apart([store.groups for store in sources.values()])
    if not shared:
        return group_N
    _, id_N = np.unique(combined_ids(sources, shared=True), return_inverse=True)
    own_N = group_N
    while True:
        least_N = _least(_least(group_N, id_N), own_N)
        if np.array_equal(least_N, group_N):
            return group_N
        group_N = least_N


def combined_labels(sources: Mapping[str, EmbeddingStore]) -> tuple[Codes, tuple[str, ...]]:
    """Return the labels of all items and the class names. Labels with names are merged by name; each label of a source
    without names becomes a separate class such as `photos:3`.
    """
    labels = {name: store.labels for name, store in sources.items()}
    labeled = [name for name, labels_n in labels.items() if (labels_n >= 0).any()]
    if len(labeled) == 1 and not sources[labeled[0]].label_names:
        return np.concatenate(list(labels.values())), ()
    numbers: dict[str, int] = {}
    parts = []
    for name, labels_n in labels.items():
        own = sources[name].label_names
        classes = np.arange(len(own)) if own else np.unique(labels_n[labels_n >= 0])
        texts = own or [f"{name}:{label}" for label in classes.tolist()]
        places = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
        merged_n = np.full(len(labels_n), -1, np.int64)
        merged_n[labels_n >= 0] = places[np.searchsorted(classes, labels_n[labels_n >= 0])]
        parts.append(merged_n)
    return np.concatenate(parts), tuple(numbers)


def combined_names(sources: Mapping[str, EmbeddingStore]) -> tuple[str, ...]:
    return tuple(f"{name}:{item}" for name, store in sources.items() for item in store.item_names)


def prefixed_keys(sources: Mapping[str, EmbeddingStore]) -> tuple[str, ...]:
    """Return N ids as texts with the prefix of their source; integer ids are converted to texts."""
    return tuple(
        f"{name}:{key}"
        for name, store in sources.items()
        for key in (store.keys if store.keys is not None else store.ids.tolist())
    )


def _apart(parts: Sequence[NDArray[Any]]) -> Codes:
    """Return codes that are equal only for equal values of the same part."""
    codes, start = [], 0
    for values_n in parts:
        distinct, code_n = np.unique(values_n, return_inverse=True)
        codes.append(code_n.reshape(-1).astype(np.int64) + start)
        start += len(distinct)
    return np.concatenate(codes)


def _least(value_N: Codes, code_N: Codes) -> Codes:
    """Return, for each item, the smallest value of the items with the same code."""
    least = np.full(int(code_N.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, code_N, value_N)
    result: Codes = least[code_N]
    return result
