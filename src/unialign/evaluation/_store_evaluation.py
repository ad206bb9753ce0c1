"""Evaluate a random sample of a store's items against all of its items, which are embedded in blocks.

Shapes: `N` items of the store's split, `n` sampled items, `M` modalities, `b` items of a block, `q` queries of a tile,
`P` pairs of a query and a positive, `D` dimension.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.batch import Batch, as_tensors, make_batch
from unialign.data import EmbeddingStore, RowReader
from unialign.errors import ConfigError, DataError
from unialign.evaluation._joint import JointQuery, JointScore, joint_scores, tuple_bases
from unialign.evaluation._retrieval_statistics import JOINT_METRICS, Directions, direction_values, item_scores
from unialign.evaluation._statistics import ConstantStatistic, ItemMean, Statistic
from unialign.metrics import RetrievalResult, retrieval_from_counts
from unialign.ops import TIE_TOLERANCE, row_tiles, unit_rows
from unialign.space import Space, check_encoders

__all__ = ["StoreItems", "sampled_retrieval"]

_BLOCK_ROWS = 4096
# Maximum number of scores copied at a time for queries with several positives (8 MiB of float64).
_PAIR_ENTRIES = 2**20


class StoreItems:
    """Embeddings of the items of a split, computed on demand; without a space, the columns are embeddings."""

    def __init__(self, store: EmbeddingStore, space: Space | None, split: str) -> None:
        self.names = [name for name in store.modalities if space is None or name in space.modalities]
        if len(self.names) < 2:
            known = "" if space is None else f", and the space has {', '.join(space.modalities)}"
            raise ConfigError(
                f"the store has {', '.join(store.modalities)}{known}; an evaluation needs two common modalities"
            )
        if space is not None:
            check_encoders(space, store)
        self.store, self.space, self.rows_N = store, space, store.rows(split)
        if len(self.rows_N) < 2:
            raise DataError(
                f"the {split!r} split of {store.name!r} has {len(self.rows_N)} items; at least 2 are required"
            )
        self._readers = {name: RowReader(store.array(name)) for name in self.names}
        # Without ids, use the position in the split as the id.
        self.ids_N = store.ids[self.rows_N] if store.has_ids else np.arange(len(self.rows_N))

    def __len__(self) -> int:
        return len(self.rows_N)

    def embed(self, places_b: NDArray[np.int64]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        rows_b = self.rows_N[places_b]
        present = {name: torch.from_numpy(self.store.present(name)[rows_b]) for name in self.names}
        features = {name: torch.from_numpy(reader.read(rows_b)) for name, reader in self._readers.items()}
        if self.space is None:
            return features, present
        embeddings = self.space.encode(features, present=present)
        return {name: z_bD.float().cpu() for name, z_bD in embeddings.items()}, present

    def batch(self, places_b: NDArray[np.int64]) -> Batch:
        embeddings, present = self.embed(places_b)
        return make_batch(as_tensors(embeddings), present=present)

    def labels(self, places_b: NDArray[np.int64]) -> Tensor | None:
        labels_b = torch.from_numpy(self.store.labels[self.rows_N[places_b]])
        return labels_b if bool((labels_b >= 0).any()) else None

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        for start in range(0, len(self), _BLOCK_ROWS):
            places_b = np.arange(start, min(start + _BLOCK_ROWS, len(self)))
            yield places_b, self.batch(places_b)


@dataclass(frozen=True, eq=False)
class _Direction:
    """Direction of retrieval; `label` is None if the direction is not listed."""

    label: str | None
    metrics: Mapping[str, str]
    queries_q: Tensor
    gallery: Callable[[Batch], Tensor]
    score: Callable[[Tensor, Batch, Tensor], Tensor]
    counts: "_Counts" = field(default_factory=lambda: _Counts())


class _Counts:
    """Number of gallery rows above and tied with the positive, for each (query, positive) pair."""

    def __init__(self) -> None:
        self.query_P, self.score_P = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        self.gallery = 0

    def set_pairs(self, query_P: Tensor, score_P: Tensor) -> None:
        order_P = query_P.argsort(stable=True)
        self.query_P, self.score_P = query_P[order_P], score_P[order_P]
        self.above_P, self.level_P = torch.zeros_like(query_P), torch.zeros_like(query_P)

    def add(self, rows_q: Tensor, s_qb: Tensor) -> None:
        low, high = torch.searchsorted(self.query_P, torch.stack([rows_q[0], rows_q[-1] + 1])).tolist()
        place_P = torch.searchsorted(rows_q, self.query_P[low:high])
        if torch.equal(place_P, torch.arange(len(rows_q))):
            # Each query has one positive, so no copy of the scores is needed.
            self._add_pairs(slice(low, high), s_qb)
            return
        # The scores of a query are copied for each of its positives, so there may be far more rows than in the tile.
        for part in row_tiles(len(place_P), s_qb.shape[1], entries=_PAIR_ENTRIES):
            self._add_pairs(slice(low + part.start, low + part.stop), s_qb[place_P[part]])

    def _add_pairs(self, pairs: slice, s_Pb: Tensor) -> None:
        above_P = (s_Pb > self.score_P[pairs, None] + TIE_TOLERANCE).sum(1)
        self.above_P[pairs] += above_P
        self.level_P[pairs] += (s_Pb >= self.score_P[pairs, None] - TIE_TOLERANCE).sum(1) - above_P

    def result(self, sampled: int, k: tuple[int, ...]) -> RetrievalResult:
        return retrieval_from_counts(
            self.query_P, self.score_P, self.above_P, self.level_P, queries=sampled, gallery=self.gallery, k=k
        )


@torch.no_grad()
def sampled_retrieval(
    items: StoreItems, sample: Batch, places_n: NDArray[np.int64], k: tuple[int, ...]
) -> tuple[Directions, dict[str, Statistic]]:
    directions = [*_pairwise(sample, k), *_joint(sample)]
    _find_positives(items, places_n, directions)
    directions = [direction for direction in directions if len(direction.counts.query_P)]
    for _, block in items.blocks():
        for direction in directions:
            for rows_q, s_qb in _scores(direction, block):
                direction.counts.add(rows_q, s_qb)
            direction.counts.gallery += int(direction.gallery(block).sum())
    values: Directions = {}
    scores: dict[str, list[Tensor]] = {}
    for direction in directions:
        result = direction.counts.result(len(places_n), k)
        if direction.label is not None:
            values[direction.label] = direction_values(result)
        for metric, name in direction.metrics.items():
            scores.setdefault(metric, []).append(item_scores((result.rows, result), name, len(places_n)))
    statistics: dict[str, Statistic] = {name: ItemMean(torch.stack(rows_KN)) for name, rows_KN in scores.items()}
    medians = [value["median_rank"] for label, value in values.items() if "+" not in label]
    if medians:
        statistics["median_rank"] = ConstantStatistic(sum(medians) / len(medians))
    return values, statistics


def _scores(direction: _Direction, block: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    gallery_b = direction.gallery(block).nonzero().flatten()
    if len(gallery_b) == 0:
        return
    for rows in row_tiles(len(direction.queries_q), len(gallery_b)):
        rows_q = direction.queries_q[rows]
        yield rows_q, direction.score(rows_q, block, gallery_b)


def _find_positives(items: StoreItems, places_n: NDArray[np.int64], directions: list[_Direction]) -> None:
    ids_n = torch.from_numpy(np.asarray(items.ids_N[places_n]))
    candidates = np.flatnonzero(np.isin(items.ids_N, ids_n.numpy()))
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in directions]
    for start in range(0, len(candidates), _BLOCK_ROWS):
        places_b = candidates[start : start + _BLOCK_ROWS]
        block, ids_b = items.batch(places_b), torch.from_numpy(np.asarray(items.ids_N[places_b]))
        for direction, pairs in zip(directions, found, strict=True):
            gallery_b = direction.gallery(block).nonzero().flatten()
            for rows_q, s_qb in _scores(direction, block):
                query, place = (ids_n[rows_q, None] == ids_b[gallery_b]).nonzero(as_tuple=True)
                pairs.append((rows_q[query], s_qb[query, place]))
    for direction, pairs in zip(directions, found, strict=True):
        if pairs:
            direction.counts.set_pairs(torch.cat([query for query, _ in pairs]), torch.cat([s for _, s in pairs]))


def _pairwise(sample: Batch, k: tuple[int, ...]) -> Iterator[_Direction]:
    metrics = [*(f"recall@{cut}" for cut in k), "mrr", "ndcg", "map"]
    for m, n in permutations(range(len(sample.names)), 2):
        queries_q = sample.present_MB[m].nonzero().flatten()
        if len(queries_q) == 0:
            continue
        unit_qD = unit_rows(sample.z_MBD[m, queries_q], sample.names[m])
        score = partial(_cosines, queries_q, unit_qD, n)
        label = f"{sample.names[m]}->{sample.names[n]}"
        yield _Direction(label, {name: name for name in metrics}, queries_q, partial(_has_any, [n]), score)


def _joint(sample: Batch) -> Iterator[_Direction]:
    for target, name in enumerate(sample.names if len(sample.names) > 2 else ()):
        others = [m for m in range(len(sample.names)) if m != target]
        tuple_label = "+".join(sample.names[m] for m in others)
        # Volumes must have the same scale in all blocks, so use the largest base in the sample.
        largest_base = tuple_bases(sample.z_MBD[others].double(), sample.present_MB[others]).max()
        for score, query, metrics in JOINT_METRICS:
            is_tuple, is_target = partial(_has_any, others), partial(_has_any, [target])
            has_query, gallery = (is_tuple, is_target) if query == "others" else (is_target, is_tuple)
            label = f"{tuple_label}->{name}" if query == "others" else f"{name}->{tuple_label}"
            queries_q = has_query(sample).nonzero().flatten()
            scores = partial(_joint_scores, sample, target, others, score, query, largest_base)
            yield _Direction(label if score == "centroid" else None, metrics, queries_q, gallery, scores)


def _has_any(modalities: list[int], batch: Batch) -> Tensor:
    return batch.present_MB[modalities].any(0)


def _cosines(
    queries_Q: Tensor, unit_QD: Tensor, modality: int, rows_q: Tensor, block: Batch, gallery_b: Tensor
) -> Tensor:
    y_bD = unit_rows(block.z_MBD[modality, gallery_b], block.names[modality])
    return unit_QD[torch.searchsorted(queries_Q, rows_q)] @ y_bD.mT


def _joint_scores(
    sample: Batch,
    target: int,
    others: list[int],
    score: JointScore,
    query: JointQuery,
    largest_base: Tensor,
    rows_q: Tensor,
    block: Batch,
    gallery_b: Tensor,
) -> Tensor:
    first, second = (sample, rows_q), (block, gallery_b)
    (tuples, rows_n), (targets, rows_t) = (first, second) if query == "others" else (second, first)
    z_KnD, present_Kn = tuples.z_MBD[others][:, rows_n].double(), tuples.present_MB[others][:, rows_n]
    z_tD = targets.z_MBD[target, rows_t].double()
    s_nt = joint_scores(z_KnD, present_Kn, z_KnD.sum(0), z_tD, score, largest_base=largest_base)
    return s_nt if query == "others" else s_nt.mT
