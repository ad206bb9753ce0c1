"""The numbers of a diagnosis as plain dictionaries, and as the runs and summary of `results.json`.

Shapes: `n` sampled items, `K` directions.
"""

import math
from typing import Any

import torch

from unialign._pair_keys import pair_name
from unialign.diagnostics._measure import Lengths, Measured, Single
from unialign.diagnostics._pair import Direction, Pair
from unialign.diagnostics._sources import Material
from unialign.diagnostics._statistics import Sample, Value, joined, plain

__all__ = ["numbers", "summary"]


def numbers(material: Material, measured: Measured, sample: Sample) -> dict[str, Any]:
    """Everything measured: `modalities`, `pairs`, `directions`, `conflict`, and how many items were looked at."""
    found: dict[str, Any] = {
        "items": material.items,
        "sampled": len(sample.rows_n),
        "modalities": {name: _single(single) for name, single in measured.singles.items()},
        "pairs": {pair_name(a, b): _pair(pair) for (a, b), pair in measured.pairs.items()},
        "directions": {name: _direction(d) for p in measured.pairs.values() for name, d in p.directions.items()},
        "conflict": measured.conflict,
        "order": {"-".join(names): vars(order) for names, order in measured.orders.items()},
    }
    for (a, b), (value, p) in measured.structure.items():
        found["pairs"][pair_name(a, b)] = {"structure": value, "structure_p": p}
    if measured.label_map is not None:
        found["label_map"], found["label_map_chance"] = measured.label_map
    known: dict[str, Any] = plain(found)
    return known


def _single(single: Single) -> dict[str, Any]:
    damage = {f"{kind}_rows": {"count": d.count, "first": list(d.first)} for kind, d in single.scan.broken.items()}
    return {
        "width": single.width,
        "dtype": single.dtype,
        "rows": single.rows,
        "absent": single.absent,
        "usable": single.usable,
        **damage,
        "blank_rows": single.scan.blank,
        "repeated_rows": single.copies.repeats,
        "distinct_rows": single.copies.distinct,
        "most_equal_rows": single.copies.largest,
        "constant_columns": len(single.scan.still),
        "largest_entry": single.scan.largest,
        "norm": {} if single.lengths is None else _lengths(single.lengths),
        "mean_cosine": single.cosine,
        "effective_rank": single.rank,
        "possible_rank": single.possible_rank,
        "uniformity": single.uniformity,
        "looked_at": single.looked,
        "fingerprint": single.scan.fingerprint,
    }


def _lengths(lengths: Lengths) -> dict[str, Any]:
    return {key: value for key, value in vars(lengths).items() if key != "first"}


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "items": pair.items,
        "modality_gap_debiased": pair.gap,
        "modality_gap": pair.raw_gap,
        "gap_share": pair.gap_share,
        "true_pair_cosine": pair.true_cosine,
        "random_pair_cosine": pair.random_cosine,
        "identical": pair.identical,
        "beaten": pair.beaten,
        "structure": pair.structure,
        "structure_p": pair.structure_p,
        "centred_recall@1": pair.centred,
        "row_shifts": [{key: value for key, value in vars(shift).items() if key != "z"} for shift in pair.shifts],
    }


def _direction(direction: Direction) -> dict[str, Any]:
    hubs = direction.hubs
    return {
        **{f"recall@{k}": value for k, value in direction.recall.items()},
        "mrr": direction.mrr,
        "median_rank": direction.median_rank,
        "beaten": direction.beaten,
        "chance": direction.chance,
        "queries": direction.queries,
        "hubness": {
            "k": hubs.k,
            "skewness": hubs.skewness,
            "chance_skewness": hubs.chance_skewness,
            "antihub_share": hubs.antihub_share,
            "largest_share": hubs.largest / direction.queries,
            "largest_row": direction.hub_row,
        },
    }


def summary(measured: Measured) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Means over directions, pairs or modalities with intervals, and a run's `directions`."""
    directions = {name: d for p in measured.pairs.values() for name, d in p.directions.items()}
    pairs = list(measured.pairs.values())
    spread = [single for single in measured.singles.values() if math.isfinite(single.rank)]
    values: dict[str, Value | None] = {
        "recall@1": joined([d.recall[1] for d in directions.values()]),
        "recall@10": joined([d.recall[10] for d in directions.values()]),
        "mrr": joined([d.mrr for d in directions.values()]),
        "median_rank": _point(d.median_rank for d in directions.values()),
        "modality_gap_debiased": joined([p.gap for p in pairs]),
        "modality_gap": _point(p.raw_gap for p in pairs),
        "true_pair_cosine": joined([p.true_cosine for p in pairs]),
        "uniformity": _point(s.uniformity for s in spread),
        "effective_rank": _point(s.rank for s in spread),
        **{key: _point([measured.conflict[key]]) for key in ("zeta", "zeta_neg", "chi") if key in measured.conflict},
    }
    if measured.label_map is not None:
        values["label_map"] = _point([measured.label_map[0]])
    run = {
        name: {
            **{f"recall@{k}": value.mean for k, value in d.recall.items()},
            "mrr": d.mrr.mean,
            "median_rank": d.median_rank,
            "queries": d.queries,
            "gallery": d.queries,
        }
        for name, d in directions.items()
    }
    return {name: value.to_dict() for name, value in values.items() if value is not None}, run


def _point(values: Any) -> Value | None:
    """A number without item weights: its interval is itself."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    return Value(mean, mean, mean, torch.full((1,), mean, dtype=torch.float64))
