"""Build a bridge from an old to a new embedding model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_choice, check_integer, check_number, check_seed
from unialign.errors import ConfigError, ShapeError
from unialign.migration._bridge import Bridge
from unialign.migration._index_scores import pair_query_scores, query_scores, top_scores
from unialign.migration._inputs import FIT_PAIRS, RowSource, content_fingerprint, open_rows, pair_rows
from unialign.migration._interval import estimate_overlap
from unialign.migration._level import Tasks, measure_levels
from unialign.migration._local_overlap import LocalOverlap, kept_scores, local_overlap
from unialign.migration._maps import KERNEL_LIMIT, KERNEL_PAIRS, METHODS, FittedMap
from unialign.migration._overlap import measure_overlap
from unialign.migration._pair_queries import pair_scores
from unialign.migration._verdict import decide, level_reasons

Array = NDArray[Any]

# Maximum number of queries that are ranked; more queries do not narrow the interval.
_MOST_QUERIES = 2000
# Maximum number of queries that are compared with the whole index.
_MOST_INDEX_QUERIES = 600
K = 10


def bridge(
    old: Any,
    new: Any,
    *,
    pairs: Any = None,
    queries: Any = None,
    goal: float = 0.95,
    methods: str | Sequence[str] = "auto",
    candidates: int = 100,
    labels: Any = None,
    known: Any = None,
    old_queries: Any = None,
    old_modality: str | None = None,
    new_modality: str | None = None,
    seed: int = 0,
) -> Bridge:
    """Map an index of old embeddings into the space of a new model, and estimate the loss of quality before the switch.

    The candidate maps are the identity, a Procrustes rotation, ridge regression, ridge regression toward the identity,
    ridge regression with fitted target lengths (for PCA), and, with 600 to 5,000 pairs, kernel ridge regression. The
    map with the lowest error on held-out pairs is chosen. The estimates assume that the pairs are a random sample of
    the index. If there are more than 20,000 pairs, 20,000 random pairs are used.

    Args:
        old: (N, D) embeddings of the index by the old model, as an array, a memory map, a tensor, a file or a store.
        new: (n, E) embeddings of the sampled items by the new model; at least 240 are recommended.
        pairs: (n,) row numbers (integers) or ids (strings) of the sampled items in the index, or (N,) bool, True for
            the sampled items, whose new rows are in the order of the index. None: items are joined by the ids of both
            sources or, if `new` has no ids, by row. Two stores are joined by the values of their ids or, if they were
            embedded from item tables and have no unique ids, by the keys of the items; only two stores without ids and
            keys are paired by row.
        queries: (Q, E) embeddings of logged queries by the new model. None: the new rows of the pairs are the queries.
        goal: required overlap@10 with the results of full re-embedding, in (0, 1].
        methods: `auto` or names of candidate maps: `identity`, `procrustes`, `ridge`, `identity_ridge`, `scaled_ridge`,
            `kernel`.
        candidates: number of results of each query that are re-embedded and re-ranked with the new model.
        labels: (N,) labels of the index, to score the old model and the mapped index by label precision; -1 marks a row
            without a label. None: the labels of the file or store are used, if there are any.
        known: (Q,) row number of the relevant item of each query, to measure recall; requires `queries`.
        old_queries: (Q, D) embeddings of the same queries by the old model, to measure its recall with `known`.
        old_modality, new_modality: name of the matrix to use, if a file or store contains several matrices.
        seed: seed of the random galleries and of the choice of queries.

    Returns:
        See `Bridge`.

    Raises:
        DataError: a file cannot be read, an id is missing, or a row is paired twice.
        ShapeError: shapes do not fit together.
        NonFiniteError: a row contains NaN or infinity, or has norm zero; the message states the row number.
        ConfigError: an option is out of range or a method is unknown.
    """
    _check_options(goal, candidates, seed)
    _check_tasks(known, queries, old_queries)
    index, sample = open_rows(old, "old", modality=old_modality), open_rows(new, "new", modality=new_modality)
    pairs_n = pair_rows(pairs, index, sample)
    queries_QE = None if queries is None else _queries(queries, sample.dim)
    tasks = Tasks.checked(
        index.labels if labels is None else labels,
        known,
        queries_QE,
        None if old_queries is None else _queries(old_queries, index.dim, "old_queries"),
        items=len(index),
    )
    used_n = _used_pairs(len(pairs_n), seed)
    x_nD, y_nE = index.take(pairs_n[used_n]), sample.take(used_n)
    fits = fit_candidates(x_nD, y_nE, methods)
    best = min(fits.values(), key=lambda fitted: fitted.error)
    measured, width = _measure(best, x_nD, y_nE, queries_QE, seed=seed), max(1, candidates // K)
    curve = measure_overlap(measured.true_Qn, measured.mapped_Qn, width=width, seed=seed)
    local = _local(best, x_nD, y_nE, measured, index, pairs_n[used_n], seed=seed)
    overlap = estimate_overlap(curve, curve.overlap, len(index), local=local)
    contained = estimate_overlap(curve, curve.contained, len(index), width=width)
    verdict, reasons = decide(overlap, contained, goal=goal, candidates=candidates)
    if len(used_n) < len(pairs_n):
        reasons = (
            *reasons,
            f"The map and the fractions are from {len(used_n):,} random pairs of the {len(pairs_n):,}, since more "
            "pairs "
            "hardly change them.",
        )
    levels = measure_levels(best.map, index, x_nD, y_nE, pairs_n[used_n], tasks, candidates=candidates, seed=seed)
    return Bridge(
        map=best.map,
        errors={name: fitted.error for name, fitted in fits.items()},
        pairs=pairs_n,
        items=len(index),
        overlap=overlap,
        contained=contained,
        levels=levels,
        verdict=verdict,
        reasons=(*reasons, *level_reasons(levels, verdict)),
        goal=float(goal),
        candidates=candidates,
        old_fingerprint=index.encoder or _content(index, pairs_n),
        new_fingerprint=sample.encoder or _content(sample, np.arange(len(sample))),
        encoders=(index.encoder is not None, sample.encoder is not None),
        _old=index,
    )


def fit_candidates(x_nD: Array, y_nE: Array, methods: str | Sequence[str]) -> dict[str, FittedMap]:
    names = _method_names(methods, len(x_nD))
    return {name: METHODS[name](x_nD, y_nE) for name in names}


def _method_names(methods: str | Sequence[str], pairs: int) -> list[str]:
    if isinstance(methods, str) and methods == "auto":
        return [name for name in METHODS if name != "kernel" or KERNEL_PAIRS <= pairs <= KERNEL_LIMIT]
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise ConfigError(f"methods must be 'auto' or a list of names such as ['ridge'], got {methods!r}")
    listed = list(methods)
    if not listed:
        raise ConfigError(f"methods is empty; expected 'auto' or names from {', '.join(METHODS)}")
    for name in listed:
        check_choice("method", name, METHODS)
    names = list(dict.fromkeys(listed))
    if "kernel" in names and pairs > KERNEL_LIMIT:
        raise ConfigError(f"kernel needs at most {KERNEL_LIMIT:,} pairs, got {pairs:,}; use ridge")
    return names


def _check_options(goal: object, candidates: object, seed: object) -> None:
    check_number("goal", goal, "a number above 0 and at most 1", lambda x: 0 < x <= 1)
    check_integer("candidates", candidates, low=K)
    check_seed(seed)


def _check_tasks(known: Any, queries: Any, old_queries: Any) -> None:
    if known is not None and queries is None:
        raise ConfigError("`known` gives the right answer of each query, so pass `queries` as well")
    if old_queries is not None and known is None:
        raise ConfigError("`old_queries` are used with `known`, the right answer of each query; pass both")


def _queries(queries: Any, dim: int, name: str = "queries") -> Array:
    rows = open_rows(queries, name)
    if rows.dim != dim:
        raise ShapeError(f"{name!r} have dim {rows.dim}, expected {dim}; embed queries and rows with the same model")
    return rows.take(np.arange(len(rows)))


def _used_pairs(count: int, seed: int) -> NDArray[np.int64]:
    if count <= FIT_PAIRS:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:FIT_PAIRS])


def _content(source: RowSource, rows_n: NDArray[np.int64]) -> str:
    return content_fingerprint(source.take(rows_n[:FIT_PAIRS]))


@dataclass(frozen=True)
class _Measured:
    """Scores of the queries, from true rows and from held-out mapped rows of the pairs.

    Attributes:
        own_Q: positions of the queries among the pairs; None for logged queries.
    """

    true_Qn: Array
    mapped_Qn: Array
    queries_QE: Array
    own_Q: NDArray[np.int64] | None


def _measure(best: FittedMap, x_nD: Array, y_nE: Array, queries_QE: Array | None, *, seed: int) -> _Measured:
    count = len(y_nE) if queries_QE is None else len(queries_QE)
    chosen_Q = np.sort(np.random.default_rng(seed).permutation(count)[:_MOST_QUERIES])
    if queries_QE is not None:
        chosen_QE = queries_QE[chosen_Q]
        return _Measured(chosen_QE @ y_nE.T, chosen_QE @ best.left_out.T, chosen_QE, None)
    true_Qn, mapped_Qn = y_nE[chosen_Q] @ y_nE.T, pair_scores(best, x_nD, y_nE, chosen_Q)
    for scores_Qn in (true_Qn, mapped_Qn):
        scores_Qn[np.arange(len(chosen_Q)), chosen_Q] = -np.inf
    return _Measured(true_Qn, mapped_Qn, y_nE[chosen_Q], chosen_Q)


def _local(
    best: FittedMap, x_nD: Array, y_nE: Array, measured: _Measured, index: RowSource, rows_n: Array, *, seed: int
) -> LocalOverlap | None:
    few_q = np.sort(np.random.default_rng(seed).permutation(len(measured.true_Qn))[:_MOST_INDEX_QUERIES])
    own_q = None if measured.own_Q is None else measured.own_Q[few_q]
    if own_q is None:
        score = query_scores(best, measured.queries_QE[few_q])
    else:
        score = pair_query_scores(best, x_nD, y_nE, own_q)
    own_rows_q = None if own_q is None else rows_n[own_q]
    top = top_scores(score, index, kept_scores(len(index), len(x_nD)), own_rows_Q=own_rows_q, seed=seed)
    return local_overlap(top, measured.true_Qn[few_q], measured.mapped_Qn[few_q], k=K, items=len(index), seed=seed)
