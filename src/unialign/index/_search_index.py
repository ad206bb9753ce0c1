"""Search an index: encode the queries, apply the filter, choose the correction, compare and re-rank."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.errors import ConfigError
from unialign.index._encoders import QueryEncoder, encode_values
from unialign.index._found import Found
from unialign.index._options import SearchOptions
from unialign.index._query import Query, QueryPart, query
from unialign.index._query_vectors import Lookup, is_features, query_vectors
from unialign.index._search import plain_derived, search
from unialign.index._storage import Storage
from unialign.space import Space

# Vectors of the queries, number of candidates -> (C, 2) parts and places for each query.
Propose = Callable[[NDArray[np.float32], int], list[NDArray[np.int64]]]


def search_index(
    storage: Storage,
    queries: Sequence[Query],
    options: SearchOptions,
    *,
    lookup: Lookup,
    space: Space | None,
    encoders: Mapping[str, QueryEncoder],
    select: Callable[[], NDArray[np.int64] | None],
) -> list[Found]:
    """Search with checked options.

    Args:
        lookup: function from a part of kind `item` to its rows.
        select: function that returns the parts and places that the filter selects, or None.
    """
    started = time.perf_counter()
    encoded = encode_inputs(queries, space, encoders)
    ready = time.perf_counter()
    allowed = select()
    filtered = time.perf_counter()
    snapshot, calibration, derived = storage.snapshot, storage.calibration, storage.derived()
    if options.correction == "none" and calibration.method != "none":
        calibration, derived = plain_derived(snapshot, derived)
    seconds = {"encode": ready - started, "filter": filtered - ready}
    vectors = query_vectors(encoded, calibration, storage.dim, encode=_not_encoded, lookup=lookup, fuse=options.fuse)
    return search(
        snapshot,
        derived,
        storage.catalog,
        calibration,
        vectors,
        options=options,
        allowed=allowed,
        exclude=[own_keys(one) for one in queries],
        seconds=seconds,
    )


def own_keys(one: Query) -> set[str]:
    """Keys of the items of a query, which are not among its results."""
    return {part.value for part in one.parts if part.kind == "item"}


def others(modalities: tuple[str, ...], key: str, target: str) -> Query:
    """Return the query by all modalities of an item but one."""
    if target not in modalities:
        raise ConfigError(f"unknown target {target!r}; the index has {', '.join(modalities)}")
    rest = [name for name in modalities if name != target]
    if not rest:
        raise ConfigError(f"the index has only the modality {target!r}, so an item has no others")
    return query(item=key, modalities=rest)


def encode_inputs(queries: Sequence[Query], space: Space | None, encoders: Mapping[str, QueryEncoder]) -> list[Query]:
    """Embed the inputs of all queries, with one call for each modality, and return queries of vectors and items."""
    waiting: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for number, one in enumerate(queries):
        for place, part in enumerate(one.parts):
            if part.kind == "input" and part.modality is not None:
                width = len(part.value) if is_features(part.value) else -1
                waiting.setdefault((part.modality, width), []).append((number, place))
    if not waiting:
        return list(queries)
    parts = [list(one.parts) for one in queries]
    for (modality, width), at in waiting.items():
        values = [queries[number].parts[place].value for number, place in at]
        given: Sequence[Any] | Tensor = values
        if width >= 0:
            given = torch.stack([torch.as_tensor(value).detach().cpu() for value in values])
        rows = encode_values(space, encoders, modality, given).double()
        for (number, place), z_D in zip(at, rows, strict=True):
            parts[number][place] = replace(parts[number][place], kind="vector", value=z_D)
    return [Query(tuple(found)) for found in parts]


def _not_encoded(modality: str, _: QueryPart) -> Tensor:
    raise ConfigError(f"the {modality!r} input of the query was not encoded")
