"""Mixed-pool retrieval: one gallery with candidates of all modalities, as in a search index.

Retrieval within a pair of modalities does not show a bias towards the modality of the query, since all candidates have
the same modality. A mixed pool contains each item once, in a random modality. A query is in the cross half if its item
is in the pool in another modality. Otherwise, the query is in the own half, and is a noisy copy of the row in the pool.

Shapes: `M` modalities, `N` items, `D` dimension, `G` gallery rows, `b` queries of a batch, `Q` queries, `k` ranks, `R`
resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_integer, check_number, check_seed
from unialign._pair_keys import pair_name
from unialign.batch import Batch, as_tensors, make_batch
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.metrics._labels import label_codes
from unialign.metrics._pool_places import FirstPlaces, dcg_weights
from unialign.metrics._pool_rows import draw_modalities, noisy_copies
from unialign.metrics._pool_scores import MixedPoolResult, PoolScores, concatenated

# Maximum number of scores in memory (64 MiB of float64).
_MOST_SCORES = 2**23
# Function of query modality, (b, D) unit queries, gallery modality and (g, D) unit rows that returns (b, g) scores.
PoolScore = Callable[[str, Tensor, str, Tensor], Tensor]


@torch.no_grad()
def mixed_pool(
    embeddings: Mapping[str, Any],
    *,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    copies: Mapping[str, Any] | None = None,
    similarity: float = 0.7,
    k: int = 10,
    seeds: Sequence[int] = (0,),
    score: PoolScore | None = None,
    pairs: bool = True,
    batch_size: int = 1024,
) -> MixedPoolResult:
    """Measure retrieval from a gallery that contains each item once, in a random modality.

    Each item that has at least two of the modalities is in the gallery, and is a query in each modality of the item.
    The relevant rows are those with the id of the query, in the modality of the query (own half) or in another modality
    (cross half); rows with this id in the other half are excluded from the ranking. Retrieval in the cross half alone
    rewards a space that ranks all rows of the query's modality last, so `balanced` is the mean of both halves.

    Queries of the own half are noisy copies m + |x - m| (c u + sqrt(1 - c^2) e) of a gallery row x, where m is the mean
    of the modality, u the direction of x - m, c the `similarity`, and e random noise with the covariance of the
    modality, orthogonal to u. Metrics are means over all orders of tied candidates (McSherry and Najork, ECIR 2008).

    Args:
        embeddings: modality -> (N, D) floating-point array or tensor; rows are L2-normalized here.
        present: modality -> (N,) bool; all rows of other modalities are present.
        ids: (N,) integers; rows with the same id are relevant for each other.
        labels: (N,) integers (negative: unlabeled) or strings, for `label_precision`.
        copies: modality -> (N, D) queries of the own half, such as second views of the items. Default: noisy copies.
        similarity: cosine of a row and its noisy copy after subtraction of the mean, in [0, 1].
        k: cut-off of NDCG@k, `share` and `label_precision`.
        seeds: seeds of the draws of modalities and noise; the queries of all draws are used together.
        score: function of the query modality, (b, D) queries, the gallery modality and (g, D) gallery rows that returns
            (b, g) scores. Rows are float64 unit rows. Default: cosine.
        pairs: whether to measure the pairs of three or more modalities.
        batch_size: maximum number of queries to rank at a time. The batch size does not affect the result.

    Raises:
        ShapeError: fewer than two modalities, fewer than two items with two modalities, or a wrong shape.
        NonFiniteError: a present row is not finite or has no direction, or a score is not finite.
        ConfigError: an option is out of range, or names do not match.
    """
    check_integer("k", k, low=1)
    check_integer("batch_size", batch_size, low=1)
    check_number("similarity", similarity, "in [0, 1]", lambda x: 0 <= x <= 1)
    seeds = _check_seeds(seeds)
    batch = _float64_batch(embeddings, present, ids)
    views = None if copies is None else _views(copies, batch, present)
    codes_N = None if labels is None else torch.from_numpy(label_codes(labels, "labels", rows=batch.z_MBD.shape[1]))
    groups = [tuple(range(len(batch.names)))]
    if pairs and len(batch.names) > 2:
        groups += combinations(groups[0], 2)
    found: dict[tuple[int, ...], list[PoolScores]] = {group: [] for group in groups}
    for seed in seeds:
        copies_MND = noisy_copies(batch.z_MBD, batch.present_MB, similarity, seed) if views is None else views
        for group, scores in found.items():
            pool = _Pool(batch, copies_MND, codes_N, group, k, seed, score or _cosine)
            if len(pool.rows_G) >= 2:
                scores.append(pool.rank(batch_size))
    if not found[groups[0]]:
        raise ShapeError("a mixed pool needs at least two items that have two modalities or more; pass more items")
    pooled = {group: concatenated(scores) for group, scores in found.items() if scores}
    of_pairs = {group: scores for group, scores in pooled.items() if len(group) == 2}
    names = batch.names
    return MixedPoolResult(pooled[groups[0]], {pair_name(names[a], names[b]): s for (a, b), s in of_pairs.items()})


class _Pool:
    """One draw of the gallery for a group of modalities."""

    def __init__(
        self,
        batch: Batch,
        copies_MND: Tensor,
        labels_N: Tensor | None,
        group: tuple[int, ...],
        k: int,
        seed: int,
        score: PoolScore,
    ) -> None:
        self.batch, self.copies_MND, self.labels_N = batch, copies_MND, labels_N
        self.group, self.k, self.score = group, k, score
        present_gN = batch.present_MB[list(group)].cpu()
        self.rows_G = (present_gN.sum(0) >= 2).nonzero().flatten()
        drawn_G = draw_modalities(present_gN[:, self.rows_G].numpy(), seed)
        self.modality_G = torch.tensor(group)[torch.from_numpy(drawn_G)]
        self.ids_G = self.rows_G if batch.ids_B is None else batch.ids_B.cpu()[self.rows_G]

    def rank(self, batch_size: int) -> PoolScores:
        parts = []
        for m in self.group:
            queries = self.batch.present_MB[m].cpu()[self.rows_G].nonzero().flatten()
            size = min(batch_size, max(1, _MOST_SCORES // len(self.rows_G)))
            parts += [self._rank(m, queries[start : start + size]) for start in range(0, len(queries), size)]
        return concatenated(parts)

    def _rank(self, m: int, places_b: Tensor) -> PoolScores:
        rows_b = self.rows_G[places_b]
        has_modality_G = self.modality_G == m
        own_b = has_modality_G[places_b]
        queries_bD = torch.where(own_b[:, None], self.copies_MND[m, rows_b], self.batch.z_MBD[m, rows_b])
        scores_bG = self._scores(m, queries_bD)
        same_bG = self.ids_G[places_b][:, None] == self.ids_G
        in_half_bG = own_b[:, None] == has_modality_G
        relevant_bG, candidate_bG = same_bG & in_half_bG, ~same_bG | in_half_bG
        places, dcg_k = FirstPlaces(scores_bG, candidate_bG, self.k), dcg_weights(self.k)
        ideal_b = dcg_k.cumsum(0)[relevant_bG.sum(1).clamp(max=self.k) - 1]
        of_modality_bG, candidates_b = candidate_bG & has_modality_G, candidate_bG.sum(1).double()
        fair_b = of_modality_bG.sum(1) / candidates_b
        in_top_b = places.sum(of_modality_bG, torch.ones(self.k))
        share_b = in_top_b / candidates_b.clamp(max=self.k) / torch.where(fair_b > 0, fair_b, torch.nan)
        return PoolScores(
            items=rows_b,
            ndcg=places.sum(relevant_bG, dcg_k) / ideal_b,
            is_own=own_b,
            shares=share_b,
            label_precisions=self._label_precision(places_b, scores_bG, ~same_bG),
        )

    def _scores(self, m: int, queries_bD: Tensor) -> Tensor:
        names, scores_bG = self.batch.names, queries_bD.new_empty(len(queries_bD), len(self.rows_G))
        for g in self.group:
            columns = (self.modality_G == g).nonzero().flatten()
            if len(columns):
                rows_gD = self.batch.z_MBD[g, self.rows_G[columns]]
                scores_bG[:, columns] = self.score(names[m], queries_bD, names[g], rows_gD).to(scores_bG)
        if not bool(torch.isfinite(scores_bG).all()):
            raise NonFiniteError(f"the scores of {names[m]!r} queries contain NaN or infinity; check `score`")
        return scores_bG.cpu()

    def _label_precision(self, places_b: Tensor, scores_bG: Tensor, candidate_bG: Tensor) -> Tensor:
        nan_b = torch.full((len(places_b),), torch.nan, dtype=torch.float64)
        if self.labels_N is None:
            return nan_b
        labels_G = self.labels_N[self.rows_G]
        label_b = labels_G[places_b]
        equal_bG = (label_b[:, None] == labels_G) & candidate_bG
        found_b = FirstPlaces(scores_bG, candidate_bG, self.k).sum(equal_bG, torch.ones(self.k))
        places = candidate_bG.sum(1).double().clamp(max=self.k)
        return torch.where((label_b >= 0) & (places > 0), found_b / places, nan_b)


def _cosine(_: str, queries_bD: Tensor, __: str, rows_gD: Tensor) -> Tensor:
    return queries_bD @ rows_gD.mT


def _float64_batch(embeddings: Any, present: Any, ids: Any) -> Batch:
    tensors = as_tensors(embeddings)
    if isinstance(tensors, Mapping):
        tensors = {name: z.double() if z.is_floating_point() else z for name, z in tensors.items()}
    return make_batch(tensors, present=present, ids=ids)


def _views(copies: Any, batch: Batch, present: Any) -> Tensor:
    """Return the unit rows (M, N, D) of the own half."""
    if not isinstance(copies, Mapping) or set(copies) != set(batch.names):
        raise ConfigError(f"copies must map each modality to (N, D) rows; the modalities are {', '.join(batch.names)}")
    views = _float64_batch({name: copies[name] for name in batch.names}, present, None)
    if views.z_MBD.shape != batch.z_MBD.shape:
        raise ShapeError(
            f"copies have shape {tuple(views.z_MBD.shape[1:])}; expected that of the embeddings, "
            f"{tuple(batch.z_MBD.shape[1:])}"
        )
    return views.z_MBD


def _check_seeds(seeds: Any) -> tuple[int, ...]:
    if isinstance(seeds, int | str) or not isinstance(seeds, Sequence) or not seeds:
        raise ConfigError(f"seeds must be a non-empty sequence of integers, such as (0, 1, 2), got {seeds!r}")
    for seed in seeds:
        check_seed(seed)
    return tuple(seeds)
