"""Find the best items of all parts: float32 scores in tiles, then float64 scores of the candidates.

Shapes: `Q` queries, `V` vectors of queries, `C` candidates, `c` items of a tile, `n` items, `k` results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.index._calibration import Calibration
from unialign.index._prepared import PreparedPart, prepare_part
from unialign.index._query_vectors import Vectors
from unialign.index._scores import (
    QueryTerms,
    error_factor,
    exact_items,
    exact_scores,
    query_terms,
    tile_scores,
)
from unialign.index._snapshot import Derived, Snapshot
from unialign.ops import Candidates, score_tiles

# Below this fraction, the rows of the chosen items are gathered instead of comparing all rows.
_FEW = 0.3


@dataclass(frozen=True)
class Entry:
    """The chosen items of a part for one group of target modalities.

    Attributes:
        first: number of the first item among the items of all entries.
        places: ascending places of the chosen items if they are few, else None.
        mask_n: chosen items, if they are neither few nor all.
        excluded: (E, 2) vectors and places that are left out.
    """

    prepared: PreparedPart
    first: int
    places: NDArray[np.int64] | None
    mask_n: Tensor | None
    excluded: NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Numbers of items.

    Attributes:
        scanned_Q: compared items or rows of each query.
        without: chosen items without a target modality.
        cancelled: chosen items whose rows cancel.
    """

    scanned_Q: list[int]
    without: int
    cancelled: int


class Scan:
    """All entries of a search with the terms of its queries.

    Attributes:
        groups: target modalities that are scored together: one group, or one modality each for rows as results.
        combine: whether the vectors of a query are combined by their maximum; else each vector is a query.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        derived: dict[int, Derived],
        calibration: Calibration,
        vectors: Vectors,
        *,
        groups: Sequence[tuple[str, ...]],
        best: bool,
        combine: bool,
        allowed: NDArray[np.int64] | None,
        excluded: NDArray[np.int64],
    ) -> None:
        """`allowed` has parts and places, `excluded` has queries, parts and places."""
        self.calibration, self.vectors, self.best = calibration, vectors, best
        self.combine = combine and len(vectors.owner_Q) > 0
        # The largest score with the terms of CSLS finds fewer items than the largest cosine.
        scored = replace(calibration, reference={}) if best else calibration
        self.terms: dict[str, QueryTerms] = query_terms(scored, vectors, sorted({n for g in groups for n in g}))
        self.owner_V = vectors.owner_Q if self.combine else torch.arange(len(vectors.owner_Q))
        self.queries = int(self.owner_V.max()) + 1 if len(self.owner_V) else 0
        self.factor = error_factor(scored, self.terms) if self.queries else 1.0
        if self.combine and bool((vectors.weight_Q < 0).any()):
            self.factor *= 2
        self.entries: list[Entry] = []
        scanned, without, cancelled, first = 0, 0, 0, 0
        fewer = np.zeros(self.queries, np.int64)
        for part in snapshot.parts:
            keep_n = _chosen(snapshot, part.id, part.items, allowed)
            has_n: NDArray[np.bool_] | None = np.zeros(part.items, np.bool_)  # None: all items
            skipped = excluded[excluded[:, 1] == part.id][:, [0, 2]]
            for group in groups:
                prepared = prepare_part(part, derived[part.id], scored, group, best=best)
                usable_n = prepared.usable_n
                mask_n = keep_n if usable_n is None else usable_n if keep_n is None else keep_n & usable_n
                count = part.items if mask_n is None else int(mask_n.sum())
                if prepared.cancelled_n is not None:
                    cancelled += int((prepared.cancelled_n & (True if keep_n is None else keep_n)).sum())
                    has_n = None if has_n is None else has_n | prepared.cancelled_n
                has_n = None if has_n is None or usable_n is None else has_n | usable_n
                if count:
                    few = None if mask_n is None or count > _FEW * part.items else np.flatnonzero(mask_n)
                    dense = None if mask_n is None or few is not None else torch.from_numpy(mask_n)
                    inside = skipped if mask_n is None else skipped[mask_n[skipped[:, 1]]]
                    np.add.at(fewer, inside[:, 0], 1)
                    self.entries.append(Entry(prepared, first, few, dense, inside))
                    scanned += count
                first += part.items
            if has_n is not None:
                missing_n = ~has_n if keep_n is None else keep_n & ~has_n
                without += int(np.count_nonzero(missing_n))
        self.counts = Counts((scanned - fewer).tolist(), without, cancelled)
        self._firsts = np.array([entry.first for entry in self.entries], np.int64)

    def top(self, k: int) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Return, for each query, exact scores and numbers of the k best items and of all that tie with the k-th, best
        first.

        Scores that tie, see `TIE_TOLERANCE`, are in arbitrary order.
        """
        found = Candidates(self.queries, max(1, min(k, max(self.counts.scanned_Q, default=1))))
        for entry in self.entries:
            error_n, places = entry.prepared.error_n * self.factor, entry.places
            for tile in score_tiles(len(error_n) if places is None else len(places), len(self.owner_V)):
                at = tile if places is None else places[tile]
                s_Qc = self._combined(tile_scores(entry.prepared, at, self.terms, self.vectors, best=self.best))
                rows_c = torch.arange(tile.start, tile.stop) if isinstance(at, slice) else torch.from_numpy(at)
                if entry.mask_n is not None:
                    s_Qc.masked_fill_(~entry.mask_n[tile], -torch.inf)
                _leave_out(s_Qc, entry.excluded, at)
                found.add(s_Qc, error_n[rows_c] if places is not None else error_n[tile], rows_c + entry.first)
        q_C, number_C = found.take()
        return self._ranked(q_C, number_C, k)

    def ranked(
        self, numbers: Sequence[NDArray[np.int64]], k: int
    ) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Return the same as `top`, among given items of each query."""
        q_C = torch.cat([torch.full((len(one),), number) for number, one in enumerate(numbers)])
        return self._ranked(q_C, torch.from_numpy(np.concatenate([*numbers, np.zeros(0, np.int64)])), k)

    def split(self, numbers: NDArray[np.int64]) -> Iterator[tuple[Entry, NDArray[np.intp], NDArray[np.int64]]]:
        """Yield each entry with the positions of its items among the numbers, and their places."""
        which = np.searchsorted(self._firsts, numbers, side="right") - 1
        for place in np.unique(which):
            chosen = np.flatnonzero(which == place)
            yield self.entries[place], chosen, numbers[chosen] - self.entries[place].first

    def vector_pairs(self, q_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (V',) vectors of the queries of candidates, and the numbers of their candidates."""
        if not self.combine:
            return q_C, torch.arange(len(q_C))
        counts_Q = torch.bincount(self.owner_V, minlength=self.queries)
        starts_Q = counts_Q.cumsum(0) - counts_Q
        candidate = torch.arange(len(q_C)).repeat_interleave(counts_Q[q_C])
        offset = torch.arange(len(candidate)) - (counts_Q[q_C].cumsum(0) - counts_Q[q_C])[candidate]
        return starts_Q[q_C[candidate]] + offset, candidate

    def _ranked(self, q_C: Tensor, number_C: Tensor, k: int) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        exact_C = np.full(len(q_C), -np.inf)
        for entry, chosen, places in self.split(number_C.numpy()):
            exact_C[chosen] = self._exact(entry, q_C[torch.from_numpy(chosen)], places).numpy()
        results = []
        queries = q_C.numpy()
        for number in range(self.queries):
            of_query = np.flatnonzero(queries == number) if self.queries > 1 else np.arange(len(queries))
            order = of_query[np.argsort(-exact_C[of_query], kind="stable")]
            results.append((exact_C[order], number_C.numpy()[order]))
        return results

    def _exact(self, entry: Entry, q_C: Tensor, places: NDArray[np.int64]) -> Tensor:
        distinct, which = np.unique(places, return_inverse=True)
        items = exact_items(entry.prepared, self.calibration, distinct)
        v_P, candidate_P = self.vector_pairs(q_C)
        n_P = torch.from_numpy(which)[candidate_P]
        s_P = exact_scores(items, self.terms, self.vectors, v_P, n_P, best=self.best)
        return s_P if not self.combine else _largest(s_P, self._weights()[v_P], candidate_P, len(q_C))

    def _weights(self) -> Tensor:
        """Return the weights of the vectors, relative to the largest weight of their query."""
        weight_V = self.vectors.weight_Q
        largest_Q = torch.zeros(self.queries, dtype=torch.float64)
        largest_Q.scatter_reduce_(0, self.owner_V, weight_V.abs(), "amax")
        return weight_V / largest_Q[self.owner_V]

    def _combined(self, s_Vc: Tensor) -> Tensor:
        """Return the (Q, c) scores of the queries."""
        if not self.combine:
            return s_Vc
        weight_V1 = self._weights().to(s_Vc)[:, None]
        owner_Vc = self.owner_V[:, None].expand_as(s_Vc)
        total_Qc = s_Vc.new_zeros(self.queries, s_Vc.shape[1])
        for sign in (1, -1):
            of_sign_V = (sign * self.vectors.weight_Q) > 0
            part_Qc = torch.full_like(total_Qc, -torch.inf).scatter_reduce_(
                0, owner_Vc[of_sign_V], (s_Vc * weight_V1.abs())[of_sign_V], "amax"
            )
            has_Q = torch.zeros(self.queries, dtype=torch.bool).index_fill_(0, self.owner_V[of_sign_V], True)
            total_Qc += sign * part_Qc.masked_fill(~has_Q[:, None], 0.0)
        return total_Qc


def _largest(s_P: Tensor, weight_P: Tensor, candidate_P: Tensor, candidates: int) -> Tensor:
    """Return the (C,) largest weighted score of the vectors with positive weights, minus that of the others."""
    total_C = torch.zeros(candidates, dtype=torch.float64)
    for sign in (1, -1):
        chosen_P = sign * weight_P > 0
        part_C = torch.full((candidates,), -torch.inf, dtype=torch.float64)
        part_C.scatter_reduce_(0, candidate_P[chosen_P], (s_P * weight_P.abs())[chosen_P], "amax")
        has_C = torch.zeros(candidates, dtype=torch.bool).index_fill_(0, candidate_P[chosen_P], True)
        total_C += sign * part_C.masked_fill(~has_C, 0.0)
    return total_C


def _chosen(snapshot: Snapshot, part: int, items: int, allowed: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
    """Return the (n,) mask of the living items that the filter allows; None if these are all."""
    alive = snapshot.alive.get(part)
    if allowed is None:
        return alive
    mask_n = np.zeros(items, np.bool_)
    mask_n[allowed[allowed[:, 0] == part, 1]] = True
    return mask_n if alive is None else mask_n & alive


def _leave_out(s_Qc: Tensor, excluded: NDArray[np.int64], at: slice | NDArray[np.int64]) -> None:
    if not len(excluded):
        return
    if isinstance(at, slice):
        inside = excluded[(excluded[:, 1] >= at.start) & (excluded[:, 1] < at.stop)]
        column = inside[:, 1] - at.start
    else:
        column = np.minimum(np.searchsorted(at, excluded[:, 1]), len(at) - 1)
        inside, column = excluded[at[column] == excluded[:, 1]], column[at[column] == excluded[:, 1]]
    s_Qc[torch.from_numpy(inside[:, 0]), torch.from_numpy(column)] = -torch.inf
