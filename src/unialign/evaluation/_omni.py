"""Compare the modalities of a space on the same items: equivalence, direction, mixed galleries and gap.

Shapes: `N` items, `n` items of a pool, `M` modalities, `D` dimension, `R` resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_seed
from unialign._pair_keys import pair_name
from unialign._plain_text import join_words
from unialign.batch import Batch, as_tensors, make_batch
from unialign.config import OmniPool
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation._agreement import Pair, agreements
from unialign.evaluation._evaluate import sampled_places
from unialign.evaluation._omni_result import OMNI_METRICS, OMNI_RANGES, OmniPair, OmniResult
from unialign.evaluation._statistics import DebiasedGap, ItemMean, Statistic, resample
from unialign.evaluation._store_evaluation import StoreItems
from unialign.geometry import modality_gap
from unialign.metrics import (
    Interval,
    PoolScores,
    RetrievalResult,
    bootstrap_p_value,
    codes,
    holm_correction,
    mixed_pool,
    percentile_interval,
    retrieval,
)
from unialign.space import Space

__all__ = ["omni"]

_POOL_SEEDS = (0, 1, 2, 3)


@torch.no_grad()
def omni(
    embeddings: Mapping[str, Any] | EmbeddingStore,
    space: Space | None = None,
    *,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    groups: Any = None,
    pool: OmniPool = "shared",
    k: int = 10,
    split: str = "test",
    sample: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> OmniResult:
    """Compare each pair (a, b) of modalities on the same items, so that differences are due to the modalities.

    Let `x_i` and `y_i` be the unit rows of item i in a and b, and n the number of items of the pool.

    - Retrieval, forward (a -> b) and backward (b -> a): R@1 and NDCG@k of the queries `x_i` in the gallery
      `y_1, ..., y_n`, and vice versa; see `metrics.retrieval`.
    - Asymmetry: the mean over i of `m_i(a -> b) - m_i(b -> a)`, where `m` is R@1 or NDCG@k. Both directions have the
      same items, so the interval and the p-value are those of paired differences; Holm's correction covers all pairs.
    - Equivalence, common neighbors: the mean over i of `|N_a(i) & N_b(i)| / k`, where `N_a(i)` are the k other items
      with the highest `<x_i, x_j>`, and `N_b(i)` those with the highest `<y_i, y_j>` (mutual k-nearest neighbors; Huh
      et al., "The platonic representation hypothesis", ICML 2024). Expected for unrelated rows: `k / (n - 1)`.
    - Equivalence, rank correlation: the mean over i of Spearman's correlation of `<x_i, x_j>` and `<y_i, y_j>` over all
      other items j (row by row, as in representational similarity analysis; Kriegeskorte et al. 2008).
    - Mixed gallery: NDCG@k for a gallery that contains every item once, in one of the two modalities at random, and the
      frequency of the query's modality among the first k results, relative to its frequency in the gallery; see
      `metrics.mixed_pool`. Values are means over four draws.
    - Gap: `|mean_i x_i - mean_i y_i|` (Liang et al., NeurIPS 2022), and its debiased form; see
      `geometry.modality_gap_debiased`.

    The measures follow mteb's experiments for omni-modal models (embeddings-benchmark/mteb issues 5358, 5359 and 5360);
    the intervals are added here. Ties are scored by their expectation. Intervals are percentile bootstraps over items
    for fixed galleries; all metrics and pairs share the resamples.

    Args:
        embeddings: modality -> (N, D) floating-point tensor or array, whose rows are normalized; or a store of
            embeddings or, with `space`, of features.
        space: space that embeds the features of a store.
        present: modality -> (N,) bool.
        ids: (N,) integers; same-id items are positives of each other, and are not neighbors of each other.
        groups: (N,) labels; items of a group are resampled together. None: those of the store, or `ids`.
        pool: "shared": the items that have every modality, so that all pairs are measured on the same items. "pair":
            for each pair, the items that have both modalities.
        k: cut-off of NDCG and of mixed galleries, and number of neighbors.
        split: split of the store.
        sample: number of random items, at least 3. None: all items; time grows with n^2, and memory with n.
        resamples: number R of resamples.
        seed: seed of the bootstrap and the sample.

    Returns:
        See `OmniResult`.

    Raises:
        ShapeError, NonFiniteError: as in `evaluate`.
        ConfigError: an option is invalid, or `space`, `split` or `sample` does not fit `embeddings`.
        DataError: a pool has fewer than three items.
    """
    check_choice("pool", pool, get_args(OmniPool))
    check_integer("k", k, low=1)
    check_seed(seed)
    batch, ids_N, groups_N = _batch(embeddings, space, present, ids, groups, split=split, sample=sample, seed=seed)
    pools = _pools(batch, pool, is_sample=sample is not None)
    agreement = _agreements(batch, ids_N, pools, pool, k)
    pairs = [_measured(batch, ids_N, rows_n, pair, k, agreement[pair]) for pair, rows_n in pools.items()]
    statistics = {(one.name, name): (s, one.points[name]) for one in pairs for name, s in one.statistics.items()}
    values = resample(statistics, groups_N, resamples=resamples, seed=seed)
    p_values = [bootstrap_p_value(values[one.name, "asymmetry"]) for one in pairs]
    found = {
        one.name: OmniPair(
            first=batch.names[one.pair[0]],
            second=batch.names[one.pair[1]],
            items=one.items,
            metrics={name: _interval(name, values[one.name, name], one.points[name]) for name in OMNI_METRICS},
            p=p,
            p_holm=corrected,
            chance=one.chance,
        )
        for one, p, corrected in zip(pairs, p_values, holm_correction(p_values), strict=True)
    }
    overall = {}
    for name in OMNI_METRICS:
        if not name.startswith("asymmetry"):
            mean_R = torch.stack([values[one.name, name] for one in pairs]).mean(0)
            overall[name] = _interval(name, mean_R, sum(one.points[name] for one in pairs) / len(pairs))
    return OmniResult(found, overall, len(ids_N), pool, k)


def _batch(
    embeddings: Any,
    space: Space | None,
    present: Any,
    ids: Any,
    groups: Any,
    *,
    split: str,
    sample: int | None,
    seed: int,
) -> tuple[Batch, Tensor, Tensor]:
    """Return the items with their ids and groups."""
    if sample is not None:
        check_integer("sample", sample, low=3)
    if isinstance(embeddings, EmbeddingStore):
        if present is not None or ids is not None:
            raise ConfigError("a store contains presence and ids; omit `present` and `ids`")
        items = StoreItems(embeddings, space, split)
        total = len(items)
        places_n = np.arange(total) if sample is None or sample >= total else sampled_places(total, sample, seed)
        embeddings, present = items.embed(places_n)
        ids = torch.from_numpy(np.array(items.ids_N[places_n]))
        all_groups = items.store.groups[items.rows_N] if groups is None else groups
        groups = codes(all_groups, "groups", rows=total)[torch.from_numpy(places_n)]
    elif space is not None or sample is not None:
        raise ConfigError("`space` and `sample` require an EmbeddingStore; give a store, or omit them")
    batch = make_batch(as_tensors(embeddings), present=present, ids=ids)
    number = batch.z_MBD.shape[1]
    ids_N = torch.arange(number) if batch.ids_B is None else batch.ids_B.cpu()
    batch = Batch(batch.names, batch.z_MBD.detach().cpu().double(), batch.present_MB.cpu(), ids_N)
    return batch, ids_N, codes(ids_N if groups is None else groups, "groups", rows=number)


def _pools(batch: Batch, pool: OmniPool, *, is_sample: bool) -> dict[Pair, Tensor]:
    """Return the rows of the items of the pool of each pair."""
    found = {}
    for a, b in combinations(range(len(batch.names)), 2):
        names = batch.names if pool == "shared" else (batch.names[a], batch.names[b])
        in_pool_N = batch.present_MB.all(0) if pool == "shared" else batch.present_MB[a] & batch.present_MB[b]
        found[a, b] = in_pool_N.nonzero().flatten()
        if len(found[a, b]) < 3:
            raise DataError(
                f"{len(found[a, b])} items have {join_words(names)}, but the protocol needs at least 3; "
                + ("increase `sample`, or " if is_sample else "")
                + ("use the pool 'pair', or fewer modalities" if pool == "shared" else "leave a modality out")
            )
    return found


@dataclass(frozen=True, eq=False)
class _Measured:
    name: str
    pair: Pair
    items: int
    points: dict[str, float]
    statistics: dict[str, Statistic]
    chance: dict[str, float]


def _agreements(
    batch: Batch, ids_N: Tensor, pools: Mapping[Pair, Tensor], pool: OmniPool, k: int
) -> Mapping[Pair, tuple[Tensor, Tensor]]:
    """Return the agreement of each pair. In a shared pool, the cosines of each modality are sorted only once."""
    if pool == "shared":
        rows_n = next(iter(pools.values()))
        return agreements(batch.z_MBD[:, rows_n], ids_N[rows_n], k)
    return {
        pair: agreements(batch.z_MBD[list(pair)][:, rows_n], ids_N[rows_n], k)[0, 1] for pair, rows_n in pools.items()
    }


def _measured(
    batch: Batch, ids_N: Tensor, rows_n: Tensor, pair: Pair, k: int, agreement: tuple[Tensor, Tensor]
) -> _Measured:
    x_nD, y_nD = (batch.z_MBD[m, rows_n] for m in pair)
    ids_n, total = ids_N[rows_n], len(ids_N)

    def spread(scores_n: Tensor) -> ItemMean:
        scores_1N = torch.full((1, total), torch.nan, dtype=torch.float64)
        scores_1N[0, rows_n] = scores_n
        return ItemMean(scores_1N)

    forward, backward = (
        retrieval(queries, gallery, query_ids=ids_n, gallery_ids=ids_n, k=(1, k))
        for queries, gallery in ((x_nD, y_nD), (y_nD, x_nD))
    )
    first, second = _scores(forward, k), _scores(backward, k)
    neighbors_n, correlation_n = agreement
    names = [batch.names[m] for m in pair]
    drawn = mixed_pool(dict(zip(names, (x_nD, y_nD), strict=True)), ids=ids_n, k=k, seeds=_POOL_SEEDS, pairs=False)
    mixed = replace(drawn.overall, items=rows_n[drawn.overall.items])
    statistics: dict[str, Statistic] = {
        "recall@1_forward": spread(first["recall"]),
        "recall@1_backward": spread(second["recall"]),
        "ndcg_forward": spread(first["ndcg"]),
        "ndcg_backward": spread(second["ndcg"]),
        "asymmetry_recall@1": spread(first["recall"] - second["recall"]),
        "asymmetry": spread(first["ndcg"] - second["ndcg"]),
        "neighbor_agreement": spread(neighbors_n),
        "rank_correlation": spread(correlation_n),
        **{f"mixed_{name}": _PoolMean(mixed, name) for name in ("balanced", "own", "cross", "share")},
        "gap": _Gap(rows_n, x_nD - y_nD),
        "gap_debiased": DebiasedGap([(rows_n, x_nD, y_nD)]),
    }
    ones_1N = torch.ones(1, total, dtype=torch.float64)
    points = {name: float(statistics[name].evaluate(ones_1N)) for name in OMNI_METRICS}
    points["gap"] = float(modality_gap(x_nD, y_nD))
    code_n = codes(ids_n, "ids")
    others_n = len(ids_n) - torch.bincount(code_n)[code_n]
    has_others_n = others_n[others_n > 0].double()
    chance = {
        "recall@1_forward": forward.chance[1],
        "recall@1_backward": backward.chance[1],
        "neighbor_agreement": float((has_others_n.clamp(max=k) / has_others_n).mean()),
        "rank_correlation": 0.0,
    }
    return _Measured(pair_name(*names), pair, len(rows_n), points, statistics, chance)


def _scores(result: RetrievalResult, k: int) -> dict[str, Tensor]:
    """Rank the items of a pool. Every item of the pool has a positive, so all queries have scores."""
    return {"recall": result.scores("recall@1"), "ndcg": result.scores(f"ndcg@{k}")}


@dataclass(frozen=True, eq=False)
class _PoolMean:
    scores: PoolScores
    name: str

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        return self.scores.resample(weights_RN)[self.name]


@dataclass(frozen=True, eq=False)
class _Gap:
    rows_n: Tensor
    d_nD: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        weights_Rn = weights_RN[:, self.rows_n]
        length_R: Tensor = torch.linalg.vector_norm(weights_Rn @ self.d_nD, dim=1)
        return length_R / weights_Rn.sum(1)


def _interval(name: str, values_R: Tensor, point: float) -> Interval:
    """Clip the interval to the range of the metric."""
    found = percentile_interval(values_R, estimate=point)
    least, most = OMNI_RANGES[name]
    return Interval(point, min(max(found.low, least), most), min(max(found.high, least), most))
