"""Search an index: encode the queries, apply the filter, choose the correction, compare and re-rank."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.errors import ConfigError
from unialign.index._approximate import approximate_candidates, uncovered
from unialign.index._encoders import QueryEncoder, encode_values
from unialign.index._found import Found
from unialign.index._options import SearchOptions
from unialign.index._query import Query, QueryPart, query
from unialign.index._query_vectors import Lookup, Vectors, is_features, query_vectors
from unialign.index._search import plain_derived, search
from unialign.index._storage import Storage
from unialign.space import Space

# Larger indexes use approximate candidates if there are any, unless a filter selects few items.
_EXACT_ITEMS = 250_000
_EXACT_SELECTED, _EXACT_FRACTION = 20_000, 0.1
# Number of candidates per result, and minimum number. With CSLS there are more, since candidates are found without its
# terms, and also for options that leave out some of the best items.
_CANDIDATES, _WIDE_CANDIDATES = (3, 30), (10, 100)
_MOST_UNCOVERED = 0.2


def search_index(
    storage: Storage,
    queries: Sequence[Query],
    options: SearchOptions,
    *,
    lookup: Lookup,
    space: Space | None,
    encoders: Mapping[str, QueryEncoder],
    select: Callable[[int], NDArray[np.int64] | None],
) -> list[Found]:
    """Search with checked options.

    Args:
        lookup: function from a part of kind `item` to its rows.
        select: function from the generation to the parts and places that the filter selects, or None.
    """
    started = time.perf_counter()
    encoded = encode_inputs(queries, space, encoders)
    ready = time.perf_counter()
    snapshot, calibration, derived = storage.view()
    allowed = select(snapshot.generation)
    filtered = time.perf_counter()
    if options.correction == "none" and calibration.method != "none":
        calibration, derived = plain_derived(snapshot, derived)
    seconds = {"encode": ready - started, "filter": filtered - ready}
    vectors = query_vectors(encoded, calibration, storage.dim, encode=not_encoded, lookup=lookup, fuse=options.fuse)
    candidates = _candidates(storage, options, vectors, allowed)
    return search(
        snapshot,
        derived,
        storage.catalog,
        calibration,
        vectors,
        options=options,
        allowed=allowed,
        exclude=[own_keys(one) for one in queries],
        candidates=candidates,
        seconds=seconds,
    )


def _candidates(
    storage: Storage, options: SearchOptions, vectors: Vectors, allowed: NDArray[np.int64] | None
) -> list[NDArray[np.int64]] | None:
    """Return approximate candidates of each query, or None to compare all items."""
    items = storage.living()
    is_wanted = options.exact is False or (options.exact == "auto" and items > _EXACT_ITEMS)
    target = "any" if options.targets == storage.modalities else options.targets[0]
    fits = options.correction == "auto" and options.fuse in ("mean", "frechet_mean") and not options.best
    fits = fits and options.unit == "item" and options.targets in (storage.modalities, (target,))
    if not is_wanted or not fits:
        return None
    if allowed is not None and len(allowed) <= max(_EXACT_SELECTED, _EXACT_FRACTION * items):
        return None
    found = storage.approximate(target)
    if found is None:
        return None
    missing = uncovered(found, storage.snapshot)
    if missing > _MOST_UNCOVERED:
        warnings.warn(
            f"the approximate index of {target!r} does not cover {missing:.0%} of the items, which are compared "
            "exactly; build it again with `build_approximate`",
            stacklevel=4,
        )
    # A filter keeps this fraction of the candidates on average.
    kept = 1.0 if allowed is None else len(allowed) / items
    left_out = options.deduplicate is not None or options.min_probability is not None or options.exclude
    wide = bool(storage.calibration.reference or left_out or allowed is not None or storage.snapshot.alive)
    per_result, fewest = _WIDE_CANDIDATES if wide else _CANDIDATES
    count = max(fewest, int(np.ceil(per_result * options.k / kept)))
    return approximate_candidates(found, storage.snapshot, vectors.q_QD.float().numpy(), count)


def own_keys(one: Query) -> set[str]:
    """Return the keys of the items of a query, which are not among its results."""
    return {part.value for part in one.parts if part.kind == "item"}


def others(modalities: tuple[str, ...], key: str, target: str) -> Query:
    """Return the query with all modalities of an item except one."""
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


def not_encoded(modality: str, _: QueryPart) -> Tensor:
    raise ConfigError(f"the {modality!r} input of the query was not encoded")
