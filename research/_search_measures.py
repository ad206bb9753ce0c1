"""Measure search in an index: corrections in a mixed gallery, items with missing modalities, and fused queries.

The correction is calibrated on training and validation items, and the gallery and the queries are held-out items.

Shapes: `N` held-out items, `Q` queries, `D` dimension, `R` resamples.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.evaluation import ItemMean, Statistic
from unialign.geometry import modality_gap_debiased
from unialign.metrics import noisy_copies
from unialign.space import Space

__all__ = ["FUSIONS", "ITEM_METHODS", "MASKS", "METHODS", "PARTS", "SCORES", "measure_search"]

METHODS = ("none", "center", "coral", "center_csls")
PARTS = ("balanced", "own", "cross", "share", "label_precision")
MASKS = (0, 30, 60)
ITEM_METHODS = ("center", "center_csls")
SCORES = ("any", "best", "mean", "sum")
FUSIONS = ("single", "mean", "frechet_mean", "max", "rrf")
_FUSED: tuple[Literal["mean", "frechet_mean", "max", "rrf"], ...] = ("mean", "frechet_mean", "max", "rrf")
# Cosine of a row and its noisy copy, which is the query if the gallery contains the query's own row.
_SIMILARITY, _K, _DEPTH = 0.7, 10, 20
Rows = Mapping[str, Tensor]


@dataclass(frozen=True)
class PoolMean:
    """Mean of the means over queries of the own half and of the cross half, or of one of them.

    `sums_HN` and `counts_HN` are sums of scores and numbers of queries of each half and item.
    """

    sums_HN: Tensor
    counts_HN: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        totals_RH = weights_RN @ self.counts_HN.mT
        return (weights_RN @ self.sums_HN.mT / totals_RH.clamp(min=1e-12)).mean(1)


@dataclass(frozen=True)
class Difference:
    first: Statistic
    second: Statistic

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        return self.first.evaluate(weights_RN) - self.second.evaluate(weights_RN)


@dataclass(frozen=True)
class Data:
    """Embeddings of the items of a store; rows are 0 where absent."""

    z: dict[str, Tensor]
    present: dict[str, Tensor]
    split: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]

    def index(self, items: NDArray[np.int64], present: Rows | None = None) -> ua.Index:
        """Index some items, whose keys are their numbers among all items."""
        shown = self.present if present is None else present
        masks = {name: shown[name][items].numpy() for name in self.z}
        kept = np.logical_or.reduce(list(masks.values()))
        store = EmbeddingStore.from_arrays(
            {name: z_ND[items].float().numpy()[kept] for name, z_ND in self.z.items()},
            present={name: mask[kept] for name, mask in masks.items()},
            labels=self.labels[items][kept],
            names=[str(item) for item in items[kept]],
        )
        return ua.Index.from_store(store, calibrate=False)


def measure_search(
    view: Any, *, planted: str = "", draws: int = 2, sizes: Sequence[int] = (), parts: str = "pool"
) -> dict[str, float | Statistic]:
    """Measure an index of the embeddings of a space.

    Args:
        planted: `shift` adds a constant vector of norm 1.2 to each modality, and `scale` also scales each dimension.
        draws: number of draws of the gallery.
        sizes: numbers of calibration items; all others use up to 5,000.
        parts: `pool`, or `all` to measure items with missing modalities and fused queries, too.
    """
    data = _embedded(view.space, view.store, planted)
    held = np.flatnonzero(data.split == 2)
    reference = data.index(np.flatnonzero(data.split != 2))
    auto = reference.calibrate()
    calibrations = {method: auto if method == auto.method else reference.calibrate(method=method) for method in METHODS}
    found: dict[str, float | Statistic] = {"search/gap": _largest_gap(data, held)}
    pools = [_Pool(data, held, seed) for seed in range(draws)]
    measured = {method: _pool_scores(pools, calibration) for method, calibration in calibrations.items()}
    for method in METHODS:
        found[f"search/chosen/{method}"] = float(method == auto.method)
    for name, values in {**measured, "auto": measured[auto.method]}.items():
        found |= {f"search/{name}/{part}": values[part] for part in PARTS if part in values}
        if name != "none":
            found |= {
                f"search/{name}/gain/{part}": Difference(values[part], measured["none"][part])
                for part in ("balanced", "label_precision")
                if part in values
            }
    for size in sizes:
        calibration = reference.calibrate(items=size)
        found[f"search/size/{size}"] = Difference(
            _pool_scores(pools, calibration)["balanced"], measured["none"]["balanced"]
        )
    if parts == "all":
        for method in ITEM_METHODS:
            found |= _item_scores(data, held, calibrations[method], method)
        found |= _fused(data, held, auto)
    return found


def _embedded(space: Space, store: EmbeddingStore, planted: str) -> Data:
    present = {name: torch.from_numpy(np.array(store.present(name))) for name in space.modalities}
    z: dict[str, Tensor] = {}
    rng = np.random.default_rng(0)
    for name, has_N in present.items():
        rows = np.flatnonzero(has_N.numpy())
        z_nD = space.encode({name: store.array(name)[rows]})[name].detach().double()
        shift = torch.from_numpy(rng.normal(size=space.dim))
        scales = rng.uniform(0.5, 1.5, space.dim)
        scales[rng.integers(space.dim)] = 3.0
        if planted == "scale":
            z_nD = _unit(z_nD * torch.from_numpy(scales))
        if planted:
            z_nD = _unit(z_nD + 1.2 * shift / shift.norm())
        z[name] = torch.zeros(store.items, space.dim, dtype=torch.float64)
        z[name][torch.from_numpy(rows)] = z_nD
    labels = np.full(store.items, -1) if store.labels is None else np.asarray(store.labels)
    return Data(z, present, np.asarray(store.split), np.asarray(store.ids), labels)


def _unit(z_ND: Tensor) -> Tensor:
    return torch.nn.functional.normalize(z_ND, dim=1)


def _largest_gap(data: Data, held: NDArray[np.int64]) -> float:
    names, gaps = list(data.z), []
    for i, a in enumerate(names):
        for b in names[:i]:
            both = held[(data.present[a] & data.present[b])[held].numpy()]
            gaps.append(float(modality_gap_debiased(data.z[a][both], data.z[b][both])))
    return max(gaps)


class _Pool:
    """Each held-out item in one random modality; queries are the rows of all its modalities."""

    def __init__(self, data: Data, held: NDArray[np.int64], seed: int) -> None:
        self.data, names = data, list(data.z)
        present_MN = torch.stack([data.present[name] for name in names])
        self.items = held[(present_MN[:, held].sum(0) >= 2).numpy()]
        rng = np.random.default_rng(seed)
        drawn_MN = torch.zeros_like(present_MN)
        for item in self.items:
            drawn_MN[rng.choice(np.flatnonzero(present_MN[:, item].numpy())), item] = True
        self.index = data.index(self.items, dict(zip(names, drawn_MN, strict=True)))
        self.modality_of = {int(item): names[int(drawn_MN[:, item].int().argmax())] for item in self.items}
        held_MND = torch.stack([data.z[name][held] for name in names])
        copies_MND = noisy_copies(held_MND, present_MN[:, held], _SIMILARITY, seed)
        place = {int(item): row for row, item in enumerate(held)}
        self.queries: list[tuple[int, str]] = []
        self.vectors: list[Tensor] = []
        for m, name in enumerate(names):
            for item in self.items[present_MN[m, self.items].numpy()].tolist():
                own = self.modality_of[item] == name
                self.queries.append((item, name))
                self.vectors.append(copies_MND[m, place[item]] if own else data.z[name][item])

    def scores(self, calibration: Any) -> Iterator[tuple[int, bool, float, float, float | None]]:
        """Yield the item of each query, whether its row is of the own half, NDCG, share and label precision."""
        self.index._storage.set_calibration(calibration)
        asked = [ua.query(vector=v, modality=n) for v, (_, n) in zip(self.vectors, self.queries, strict=True)]
        same_id = dict[int, list[int]]()
        for item in self.items.tolist():
            same_id.setdefault(int(self.data.ids[item]), []).append(item)
        for (item, name), found in zip(self.queries, self.index.search(asked, k=_DEPTH), strict=True):
            own = self.modality_of[item] == name
            same = same_id[int(self.data.ids[item])]
            relevant = {other for other in same if (self.modality_of[other] == name) == own}
            left_out = set(same) - relevant
            top = [key for hit in found if (key := int(hit.key)) not in left_out][:_K]
            gains = sum(1 / np.log2(2 + place) for place, key in enumerate(top) if key in relevant)
            ideal = sum(1 / np.log2(2 + place) for place in range(min(len(relevant), _K)))
            candidates = [key for key in self.items.tolist() if key not in left_out]
            fair = sum(self.modality_of[key] == name for key in candidates) / len(candidates)
            share = sum(self.modality_of[key] == name for key in top) / len(top) / fair
            labels = self.data.labels
            others = [key for key in top if key not in relevant]
            precision = None
            if labels[item] >= 0 and others:
                precision = float(np.mean([labels[key] == labels[item] for key in others]))
            yield item, own, float(gains / ideal), share, precision


def _pool_scores(pools: Sequence[_Pool], calibration: Any) -> dict[str, Statistic]:
    data = pools[0].data
    row = {int(item): place for place, item in enumerate(np.flatnonzero(data.split == 2))}
    sums = torch.zeros(4, len(row), dtype=torch.float64)
    counts = torch.zeros_like(sums)
    for pool in pools:
        for item, own, ndcg, share, precision in pool.scores(calibration):
            values = {int(not own): ndcg, 2: share} | ({} if precision is None else {3: precision})
            for part, value in values.items():
                sums[part, row[item]] += value
                counts[part, row[item]] += 1
    found: dict[str, Statistic] = {
        "balanced": PoolMean(sums[:2], counts[:2]),
        "own": PoolMean(sums[:1], counts[:1]),
        "cross": PoolMean(sums[1:2], counts[1:2]),
        "share": PoolMean(sums[2:3], counts[2:3]),
    }
    if counts[3].sum() > 0:
        found["label_precision"] = PoolMean(sums[3:], counts[3:])
    return found


def _item_scores(data: Data, held: NDArray[np.int64], calibration: Any, method: str) -> dict[str, Statistic]:
    """R@10 of items whose rows are missing at random, for queries of one modality against the others."""
    names = list(data.z)
    found: dict[str, Statistic] = {}
    for mask in MASKS:
        hits: dict[str, list[Tensor]] = {score: [] for score in SCORES}
        for number, name in enumerate(names):
            rng = np.random.default_rng([mask, number])
            others = [other for other in names if other != name]
            shown = {other: data.present[other].clone() for other in names}
            shown[name][:] = False
            for other in others:
                shown[other] &= torch.from_numpy(rng.random(len(shown[other])) >= mask / 100)
            index = data.index(held, shown)
            index._storage.set_calibration(calibration)
            asked = [place for place, item in enumerate(held) if data.present[name][item]]
            queries = [ua.query(vector=data.z[name][held[place]], modality=name) for place in asked]
            for score in ("any", "best"):
                answers = index.search(queries, k=_K, target=others if score == "any" else score)
                hits[score].append(_recall(data, held, asked, [a.keys for a in answers], index))
            if method == "center":
                keys = _sums(data, held, calibration, shown, name, others, asked)
                for score in ("mean", "sum"):
                    hits[score].append(_recall(data, held, asked, keys[score], index))
        for score, values in hits.items():
            if values:
                found[f"search/items/{method}/{mask}/{score}"] = ItemMean(torch.stack(values))
    return found


def _recall(
    data: Data, held: NDArray[np.int64], asked: Sequence[int], keys: Sequence[Sequence[str]], index: ua.Index
) -> Tensor:
    """(N,) 1 if an item with the id of the query is found, NaN for items that are not in the index."""
    hit_N = torch.full((len(held),), torch.nan, dtype=torch.float64)
    for place, found in zip(asked, keys, strict=True):
        if str(held[place]) in index:
            hit_N[place] = float(data.ids[held[place]] in {data.ids[int(key)] for key in found})
    return hit_N


def _sums(
    data: Data,
    held: NDArray[np.int64],
    calibration: Any,
    shown: Rows,
    name: str,
    others: Sequence[str],
    asked: Sequence[int],
) -> dict[str, list[list[str]]]:
    """Mean and sum of the cosines of present rows, which an index does not offer."""
    q_QD = calibration.correct(name, data.z[name][held[list(asked)]])
    total_QN = torch.zeros(len(asked), len(held), dtype=torch.float64)
    count_N = torch.zeros(len(held), dtype=torch.float64)
    for other in others:
        has_N = shown[other][held]
        z_ND = calibration.correct(other, data.z[other][held]).nan_to_num()
        total_QN += (q_QD @ z_ND.mT).masked_fill(~has_N, 0)
        count_N += has_N
    absent_N = count_N == 0
    tables = {"mean": total_QN / count_N.clamp(min=1), "sum": total_QN}
    return {
        score: [
            [str(held[place]) for place in row]
            for row in table_QN.masked_fill(absent_N, -torch.inf).topk(_K, dim=1).indices.tolist()
        ]
        for score, table_QN in tables.items()
    }


def _fused(data: Data, held: NDArray[np.int64], calibration: Any) -> dict[str, Statistic]:
    """R@10 of one modality, for queries of all others that an item has."""
    names = list(data.z)
    hits: dict[str, list[Tensor]] = {fusion: [] for fusion in FUSIONS}
    for target in names:
        complete = np.logical_and.reduce([data.present[name][held].numpy() for name in names])
        index = data.index(held, {n: data.present[n] if n == target else torch.zeros_like(data.present[n])
                                  for n in names})  # fmt: skip
        index._storage.set_calibration(calibration)
        asked = np.flatnonzero(complete).tolist()
        others = [name for name in names if name != target]
        single = {n: [ua.query(vector=data.z[n][held[place]], modality=n) for place in asked] for n in others}
        alone = [
            _recall(data, held, asked, [f.keys for f in index.search(queries, k=_K, target=target)], index)
            for queries in single.values()
        ]
        hits["single"].append(torch.stack(alone).mean(0))
        fused = [reduce(operator.add, parts) for parts in zip(*single.values(), strict=True)]
        for fusion in _FUSED:
            answers = index.search(fused, k=_K, target=target, fuse=fusion)
            hits[fusion].append(_recall(data, held, asked, [f.keys for f in answers], index))
    return {f"search/fuse/{fusion}": ItemMean(torch.stack(values)) for fusion, values in hits.items()}
