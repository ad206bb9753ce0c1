"""The steps of a search: chosen items -> exact best items -> records -> hits."""

import time
from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.index._calibration import Calibration, uncorrected
from unialign.index._catalog import Catalog
from unialign.index._derived import derive
from unialign.index._found import Found, Hit
from unialign.index._hits import Ranked, describe
from unialign.index._options import SearchOptions, search_options, target_modalities as target_modalities
from unialign.index._query_vectors import Vectors
from unialign.index._scan import Scan
from unialign.index._scores import exact_items
from unialign.index._snapshot import Derived, Snapshot
from unialign.ops import TIE_TOLERANCE

# Reciprocal rank fusion (Cormack et al., SIGIR 2009): the constant, and the length of the lists.
_RRF, _RRF_DEPTH = 60, 1000
# Maximum number of items that `deduplicate` and `min_probability` consider.
_MOST_DEPTH = 10_000


def search(
    snapshot: Snapshot,
    derived: dict[int, Derived],
    catalog: Catalog,
    calibration: Calibration,
    vectors: Vectors,
    *,
    k: int = 10,
    target: str | Sequence[str] = "any",
    options: SearchOptions | None = None,
    allowed: NDArray[np.int64] | None = None,
    exclude: Sequence[Collection[str]] = (),
    candidates: Sequence[NDArray[np.int64]] | None = None,
    seconds: dict[str, float] | None = None,
) -> list[Found]:
    """Compare the items of a snapshot with each query, and return the best k.

    Args:
        options: checked options; None: only `k` and `target` are given.
        allowed: (S, 2) parts and places of the items that the filter selects; None for all.
        exclude: keys to leave out, for each query.
        candidates: (C, 2) parts and places for each query, of which the best are returned; None to compare all items.
        seconds: durations of earlier stages.
    """
    started = time.perf_counter()
    if options is None:
        options = search_options(snapshot.modalities, k=k, target=target)
    queries = int(vectors.owner_Q.max()) + 1 if len(vectors.owner_Q) else 0
    scan = Scan(
        snapshot,
        derived,
        calibration,
        vectors,
        groups=options.groups,
        best=options.best,
        combine=options.fuse == "max",
        allowed=allowed,
        excluded=_excluded(catalog, snapshot, exclude, vectors, options, queries),
    )
    chosen = None if candidates is None else _numbers(scan, candidates)
    scanned = time.perf_counter()
    found = _fill(scan, catalog, calibration, vectors, options, queries, chosen)
    timed = {**(seconds or {}), "search": scanned - started + found[1], "records": found[2]}
    warnings = _warnings(scan, options)
    results = []
    for number, (hits, limited) in enumerate(found[0]):
        first = int(vectors.of(number)[0]) if options.fuse == "rrf" else number
        looked_at = scan.counts.scanned_Q[first] if chosen is None else len(chosen[first])
        results.append(
            Found(
                hits,
                chosen is None,
                looked_at,
                calibration.method,
                timed,
                (*warnings, *limited),
                snapshot.generation,
            )
        )
    return results


def plain_derived(snapshot: Snapshot, derived: dict[int, Derived]) -> tuple[Calibration, dict[int, Derived]]:
    """Return a calibration without correction and its numbers, which are computed once."""
    plain = uncorrected(snapshot.modalities, "no correction was requested")
    found = {}
    for part in snapshot.parts:
        kept = derived[part.id].kept
        if "plain" not in kept:
            kept["plain"] = derive(part, plain)
        found[part.id] = kept["plain"]
    return plain, found


def _excluded(
    catalog: Catalog,
    snapshot: Snapshot,
    exclude: Sequence[Collection[str]],
    vectors: Vectors,
    options: SearchOptions,
    queries: int,
) -> NDArray[np.int64]:
    """Return (E, 3) queries, parts and places; with `rrf`, each vector of a query is searched separately."""
    keys = [set(options.exclude) | set(exclude[number] if exclude else ()) for number in range(queries)]
    distinct = sorted(set().union(*keys))
    records = dict(zip(distinct, catalog.find(distinct, snapshot.generation), strict=True)) if distinct else {}
    rows: list[tuple[int, int, int]] = []
    for number, of_query in enumerate(keys):
        searched = vectors.of(number).tolist() if options.fuse == "rrf" else [number]
        for key in of_query:
            record = records[key]
            if record is not None:
                rows.extend((one, record.part, record.place) for one in searched)
    return np.array(rows, np.int64).reshape(-1, 3)


def _numbers(scan: Scan, candidates: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Return the numbers of the candidates among the chosen items of the scan."""
    found = []
    for number in range(scan.queries):
        at = candidates[int(scan.vectors.owner_Q[number]) if not scan.combine else number]
        chosen = []
        for entry in scan.entries:
            places = np.sort(at[at[:, 0] == entry.prepared.part.id, 1])
            if entry.places is not None:
                places = places[np.isin(places, entry.places)]
            elif entry.mask_n is not None:
                places = places[entry.mask_n.numpy()[places]]
            if len(entry.excluded):
                places = places[~np.isin(places, entry.excluded[entry.excluded[:, 0] == number, 1])]
            chosen.append(entry.first + places)
        found.append(np.concatenate([*chosen, np.zeros(0, np.int64)]))
    return found


def _fill(
    scan: Scan,
    catalog: Catalog,
    calibration: Calibration,
    vectors: Vectors,
    options: SearchOptions,
    queries: int,
    chosen: list[NDArray[np.int64]] | None,
) -> tuple[list[tuple[tuple[Hit, ...], tuple[str, ...]]], float, float]:
    """Return the hits and warnings of each query, and seconds of the search and of the records.

    Deduplication and `min_probability` remove items, so the depth grows until k are left.
    """
    searching = reading = 0.0
    depth = options.k
    filtered = options.deduplicate is not None or options.min_probability is not None
    while True:
        started = time.perf_counter()
        ranked = _ranked(scan, options, vectors, queries, depth, chosen)
        searched = time.perf_counter()
        ordered = _ordered(scan, catalog, ranked, depth)
        searching += searched - started
        if options.deduplicate is not None:
            kept = [_distinct(scan, one, options.deduplicate) for one in ordered]
        else:
            kept = ordered
        if not filtered:
            hits = describe(scan, calibration, vectors, [one[: options.k] for one in kept])
            reading += time.perf_counter() - searched
            return [(one, ()) for one in hits], searching, reading
        hits = describe(scan, calibration, vectors, kept)
        if options.min_probability is not None:
            least = options.min_probability
            hits = [tuple(h for h in one if h.probability is not None and h.probability >= least) for one in hits]
        reading += time.perf_counter() - searched
        open_queries = [
            number for number, one in enumerate(hits) if len(one) < options.k and len(ordered[number]) >= depth
        ]
        if not open_queries or depth >= _MOST_DEPTH:
            limit = f"only the best {depth:,} items were considered for `deduplicate` and `min_probability`"
            return (
                [(one[: options.k], (limit,) if number in open_queries else ()) for number, one in enumerate(hits)],
                searching,
                reading,
            )
        depth = min(max(4 * depth, 100), max(_MOST_DEPTH, options.k))


def _ranked(
    scan: Scan,
    options: SearchOptions,
    vectors: Vectors,
    queries: int,
    depth: int,
    chosen: list[NDArray[np.int64]] | None,
) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    if options.fuse != "rrf":
        return scan.top(depth) if chosen is None else scan.ranked(chosen, depth)
    length = max(_RRF_DEPTH, depth)
    lists = scan.top(length) if chosen is None else scan.ranked(chosen, length)
    found = []
    for number in range(queries):
        total: dict[int, float] = {}
        of_query = vectors.of(number).tolist()
        for vector in of_query:
            scores, numbers = lists[vector]
            ranks = _ranks(scores)
            for item, rank in zip(numbers[ranks <= length].tolist(), ranks[ranks <= length].tolist(), strict=True):
                total[item] = total.get(item, 0.0) + float(vectors.weight_Q[vector]) / (_RRF + rank)
        numbers = np.fromiter(total.keys(), np.int64, len(total))
        scores = np.fromiter(total.values(), np.float64, len(total))
        order = np.argsort(-scores, kind="stable")
        found.append((scores[order], numbers[order]))
    return found


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the ranks from 1 of descending scores; scores that tie share the first rank."""
    opens = np.ones(len(scores), np.bool_)
    opens[1:] = scores[:-1] - scores[1:] > TIE_TOLERANCE
    starts = np.flatnonzero(opens)
    found: NDArray[np.int64] = starts[np.cumsum(opens) - 1] + 1 if len(scores) else np.zeros(0, np.int64)
    return found


def _ordered(
    scan: Scan, catalog: Catalog, ranked: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]], depth: int
) -> list[list[Ranked]]:
    """Return the best items with their records; ties by key. All records are read at once."""
    wanted = []
    for scores, numbers in ranked:
        end = min(depth, len(scores))
        while 0 < end < len(scores) and scores[end - 1] - scores[end] <= TIE_TOLERANCE:
            end += 1
        wanted.append((scores[:end], numbers[:end]))
    distinct = np.unique(np.concatenate([*(numbers for _, numbers in wanted), np.zeros(0, np.int64)]))
    places = [(0, 0)] * len(distinct)
    for entry, chosen, at in scan.split(distinct):
        for position, place in zip(chosen.tolist(), at.tolist(), strict=True):
            places[position] = (entry.prepared.part.id, place)
    records = dict(zip(distinct.tolist(), catalog.at_places(places), strict=True))
    found = []
    for scores, numbers in wanted:
        rows = [(s, n, records[n]) for s, n in zip(scores.tolist(), numbers.tolist(), strict=True)]
        starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(rows)) if a[0] - b[0] > TIE_TOLERANCE), len(rows)]
        groups = [sorted(rows[a:b], key=lambda row: (row[2].key, row[1])) for a, b in pairwise(starts)]
        found.append([row for group in groups for row in group][:depth])
    return found


def _distinct(scan: Scan, rows: list[Ranked], threshold: float) -> list[Ranked]:
    """Leave out items whose vector has at least this cosine with that of a better item."""
    numbers = np.array([number for _, number, _ in rows], np.int64)
    unit_nD = torch.zeros(len(rows), scan.vectors.q_QD.shape[1], dtype=torch.float64)
    for entry, chosen, places in scan.split(numbers):
        distinct, which = np.unique(places, return_inverse=True)
        items = exact_items(entry.prepared, scan.calibration, distinct)
        unit_nD[torch.from_numpy(chosen)] = torch.stack(list(items.unit.values())).sum(0)[torch.from_numpy(which)]
    unit_nD /= torch.linalg.vector_norm(unit_nD, dim=1, keepdim=True).clamp(min=1e-9)
    kept: list[int] = []
    for place in range(len(rows)):
        if not kept or float((unit_nD[kept] @ unit_nD[place]).max()) < threshold:
            kept.append(place)
    return [rows[place] for place in kept]


def _warnings(scan: Scan, options: SearchOptions) -> tuple[str, ...]:
    found = []
    if scan.counts.without:
        names = ", ".join(options.targets)
        found.append(f"{scan.counts.without} items have none of the target modalities {names}")
    if scan.counts.cancelled:
        found.append(f"the vectors of {scan.counts.cancelled} items cancel, so these items have no direction")
    return tuple(found)
