"""Convert the measurements of a diagnosis to built-in types and to the content of `results.json`."""

import math
import os
from collections.abc import Mapping
from typing import Any

from unialign._pair_keys import pair_name
from unialign._plain_text import repeat_command
from unialign.diagnostics._detail_numbers import describe_neighbors, describe_pair, describe_space
from unialign.diagnostics._estimate import Estimate, average
from unialign.diagnostics._measure import Measurements, directions_of
from unialign.diagnostics._modality import ModalityStats
from unialign.diagnostics._pair import DirectionStats, PairStats
from unialign.diagnostics._report import DiagnosisReport
from unialign.io import describe_environment


def describe_numbers(measured: Measurements, sampled: int) -> dict[str, Any]:
    details = measured.details
    pairs = {
        pair_name(*pair): _pair(stats) | (describe_pair(details.pairs[pair]) if pair in details.pairs else {})
        for pair, stats in measured.pairs.items()
    }
    pairs |= {pair_name(a, b): {"cka": cka, "cka_p": p} for (a, b), (cka, p) in measured.cka.items()}
    found: dict[str, Any] = {
        "items": measured.data.items,
        "sampled": sampled,
        "modalities": {
            name: _modality(m)
            | ({"negatives": describe_neighbors(measured.neighbors[name])} if name in measured.neighbors else {})
            for name, m in measured.modalities.items()
        },
        "pairs": pairs,
        "directions": {name: _direction(d) for name, d in directions_of(measured.pairs).items()},
        "conflict": measured.conflict,
        **describe_space(details),
        "row_alignment": {"-".join(names): vars(a) for names, a in measured.row_alignment.items()},
    }
    if measured.label_map is not None:
        found["label_map"], found["label_map_chance"] = measured.label_map
    return dict(_plain(found))


def _plain(value: Any) -> Any:
    """Convert measurements to built-in types; an `Estimate` becomes mean, low and high."""
    if isinstance(value, Estimate):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


_INTERNAL = ("scan", "duplicates", "norms", "changed_top1", "near", "spread_cosine", "spread_rank", "unsigned_codes")


def _modality(m: ModalityStats) -> dict[str, Any]:
    return {
        **{key: value for key, value in vars(m).items() if key not in _INTERNAL},
        **{f"{kind}_rows": vars(invalid) for kind, invalid in m.scan.invalid.items()},
        "blank_rows": m.scan.blank,
        "duplicate_rows": m.duplicates.repeats,
        "distinct_rows": m.duplicates.distinct,
        "largest_duplicate_group": m.duplicates.largest,
        "constant_columns": len(m.scan.constant_columns),
        "largest_entry": m.scan.largest,
        "norm": {} if m.norms is None else {key: value for key, value in vars(m.norms).items() if key != "first"},
        "fingerprint": m.scan.fingerprint,
    }


def _pair(stats: PairStats) -> dict[str, Any]:
    same = ("items", "modality_gap", "gap_fraction", "true_pair_cosine", "random_pair_cosine", "identical", "auc")
    return {
        **{key: getattr(stats, key) for key in (*same, "cka", "cka_p")},
        "modality_gap_debiased": stats.gap,
        "distinct_items": stats.distinct_items,
        "copy": vars(stats.copy) if stats.is_copy else {},
        "match": {} if stats.match is None else vars(stats.match),
        "centered_recall@1": stats.centered_recall,
        "row_offsets": [{key: value for key, value in vars(o).items() if key != "z"} for o in stats.offsets],
    }


def _direction(direction: DirectionStats) -> dict[str, Any]:
    hubs = direction.hubs
    return {
        **{f"recall@{k}": value for k, value in direction.recall.items()},
        **{key: value for key, value in vars(direction).items() if key not in ("recall", "hubs", "hub_row")},
        "hubness": {
            **{key: getattr(hubs, key) for key in ("k", "skewness", "chance_skewness", "antihub_fraction")},
            "queries": hubs.queries,
            "candidates": len(hubs.counts),
            "largest_fraction": hubs.largest / hubs.queries,
            "largest_row": direction.hub_row,
        },
    }


def summarize(measured: Measurements) -> dict[str, dict[str, float]]:
    directions, pairs = list(directions_of(measured.pairs).values()), list(measured.pairs.values())
    spread = [m for m in measured.modalities.values() if math.isfinite(m.effective_rank)]
    estimates = {
        "recall@1": average([d.recall[1] for d in directions]),
        "recall@10": average([d.recall[10] for d in directions]),
        "mrr": average([d.mrr for d in directions]),
        "modality_gap_debiased": average([p.gap for p in pairs]),
        "true_pair_cosine": average([p.true_pair_cosine for p in pairs]),
    }
    # These values were not resampled, so their intervals have zero width.
    values: dict[str, list[float]] = {
        "median_rank": [d.median_rank for d in directions],
        "modality_gap": [p.modality_gap for p in pairs],
        "uniformity": [m.uniformity for m in spread],
        "effective_rank": [m.effective_rank for m in spread],
        **{key: [measured.conflict[key]] for key in ("zeta", "zeta_neg", "chi") if key in measured.conflict},
        "label_map": [] if measured.label_map is None else [measured.label_map[0]],
    }
    finite = {name: [value for value in row if math.isfinite(value)] for name, row in values.items()}
    means = {name: math.fsum(row) / len(row) for name, row in finite.items() if row}
    return {name: estimate.to_dict() for name, estimate in estimates.items() if estimate is not None} | {
        name: {"mean": mean, "low": mean, "high": mean} for name, mean in means.items()
    }


def make_results(report: DiagnosisReport, *, seconds: float, out: str | os.PathLike[str] = "") -> dict[str, Any]:
    from unialign.experiments import describe_metrics  # imported lazily, since it loads all training code

    details, numbers = report.details, report.numbers
    settings = details["settings"]
    chance = [d["chance"]["recall@1"] for d in numbers["directions"].values()]
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {
            "name": details["name"],
            "fingerprint": report.fingerprint,
            "items": numbers["items"],
            "modalities": list(numbers["modalities"]),
            **{key: details[key] for key in ("kinds", "sources", "ids", "labels")},
        },
        "protocol": {
            "name": "diagnosis: all rows are read once; geometry and retrieval use a random sample of items",
            "k": [1, 10],
            "recall": "hit rate: fraction of queries with a positive among the first k",
            "positives": "same-id items; bitwise equal rows are never negatives",
            "ties": "expected",
            "pool": settings["sample"],
            "chance_recall@1": sum(chance) / len(chance) if chance else None,
            "directions": len(numbers["directions"]),
            "bootstrap": {
                "resamples": settings["resamples"],
                "level": settings["level"],
                "unit": "items; same-id items are resampled together",
            },
            "seed": settings["seed"],
            "selection": "nothing was trained",
        },
        "objectives": {"given": {"label": "as given", "note": "", "settings": {}, "parameters": None}},
        "metrics": {name: facts for name, facts in describe_metrics().items() if name in report.summary},
        "runs": [_run(report, seconds)],
        "summary": {"given": report.summary},
        "comparisons": [],
        "reproduce": repeat_command("diagnose", out),
        **report.to_dict(),
        "sketch": details["sketch"],
    }


def _run(report: DiagnosisReport, seconds: float) -> dict[str, Any]:
    directions = {
        name: {
            **{key: d[key]["mean"] for key in ("recall@1", "recall@10", "mrr")},
            "median_rank": d["median_rank"],
            "queries": d["queries"],
            "gallery": d["queries"],
        }
        for name, d in report.numbers["directions"].items()
    }
    metrics = {name: value["mean"] for name, value in report.summary.items()}
    run = {"objective": "given", "seed": 0, "metrics": metrics, "directions": directions}
    return run | {"seconds": seconds, "warnings": [], "folder": "."}
