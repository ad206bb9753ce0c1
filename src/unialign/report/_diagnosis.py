"""Write the page of a diagnosis from its `results.json`."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report import _cosines, _heatmap, _maps
from unialign.report._bars import labeled_bars
from unialign.report._format import number_format
from unialign.report._index_tables import index_sections
from unialign.report._model import DataInfo
from unialign.report._plot import read_map
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._table_cells import Cell, column, table_rows
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_SIGNS = {"problem": "✗ problem", "warning": "▲ warning", "note": "● note", "ok": "✓ ok"}
# Maximum number of pairs shown as plots; the tables list all pairs.
_PANELS = 15


def write_diagnosis_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the diagnosis in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain a diagnosis.
    """
    target = Path(folder) / "report.html"
    results = read_results(folder, "diagnose", "findings", lambda found: isinstance(found.get("findings"), list))
    page = fill("diagnosis.html.j2", styles=("page.css", "diagnosis.css"), context=_context(clean(results)))
    replace_file(target, page)
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    numbers, about = results["numbers"], results["data"]
    data = DataInfo(about["name"], about["fingerprint"], about["items"], tuple(about["modalities"]))
    tally = Counter(finding["severity"] for finding in results["findings"])
    counts = [count(tally[s], s) for s in ("problem", "warning", "note") if tally[s]]
    sampled, items = numbers["sampled"], numbers["items"]
    sample = "measured on all items" if sampled == items else f"measured on {sampled:,} random items"
    return {
        "title": f"Diagnosis of {data.name}",
        "facts": [count(items, "item"), count(len(data.modalities), "modality", "modalities"), *counts, sample],
        "answer": results["answer"],
        "severity": next((s for s in _SIGNS if tally[s]), "ok"),
        "findings": [finding | {"sign": _SIGNS[finding["severity"]]} for finding in results["findings"]],
        "panels": _PANELS,
        "markers": _maps.marker_definitions(data.modalities),
        "legend": [(_maps.legend_mark(i), name) for i, name in enumerate(data.modalities)],
        "map": _map(results["sketch"], data),
        "heat": _heat(numbers["directions"], data),
        "gap": _gap(numbers["pairs"]),
        "cosines": [
            (name, _cosines.cosine_panel(f"cosines{i}", name, histogram))
            for i, (name, histogram) in enumerate(list(results["sketch"].get("cosines", {}).items())[:_PANELS])
        ],
        "pairs": len(results["sketch"].get("cosines", {})),
        "gaps": sum("modality_gap_debiased" in p for p in numbers["pairs"].values()),
        "modality_rows": table_rows(numbers["modalities"], _modality_columns),
        "pair_rows": table_rows({name: p for name, p in numbers["pairs"].items() if "items" in p}, _pair_columns),
        "direction_rows": table_rows(
            {name.replace("->", " → "): d for name, d in numbers["directions"].items()}, _direction_columns
        ),
        "index_sections": index_sections(numbers),
        "issue_summary": results["issue_summary"],
        "sources": list(results["data"]["sources"].items()),
        "fingerprint": data.fingerprint,
        "protocol": plain_rows(results["protocol"]),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _map(sketch: Mapping[str, Any], data: DataInfo) -> dict[str, Any] | None:
    if not sketch:
        return None
    projection = read_map(sketch)
    first, second = projection.explained
    names = [f"row {row:,}" for row in sketch["rows"]]
    half = _maps.reach([projection])
    chart = _maps.space_map("map", "Map of the sample", data, projection, half, names, range(len(names)))
    note = f"the axes explain {100 * first:.0f} % and {100 * second:.0f} % of the variance; {len(names):,} items"
    return {"chart": chart, "note": note}


def _heat(directions: Mapping[str, Any], data: DataInfo) -> dict[str, Any] | None:
    pairs = [(a, b) for a in data.modalities for b in data.modalities if f"{a}->{b}" in directions]
    if not pairs:
        return None
    values = {(a, b): directions[f"{a}->{b}"]["recall@1"]["mean"] for a, b in pairs}
    top = max(*values.values(), 0.01)
    return {
        "chart": _heatmap.heatmap("heat", "given", "R@1", data, values, top),
        "scale": _heatmap.scale_bar(top, "R@1"),
    }


def _gap(pairs: Mapping[str, Any]) -> Markup | None:
    gaps = {name: p["modality_gap_debiased"] for name, p in pairs.items() if "modality_gap_debiased" in p}
    if not gaps:
        return None
    rows = [(name, read_estimate(gaps[name])) for name in sorted(gaps, key=lambda name: -gaps[name]["mean"])[:_PANELS]]
    return labeled_bars("gap", "Debiased gap", number_format([e.high for _, e in rows], unit="number"), rows)


def _modality_columns(rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    invalid = [sum(m[f"{kind}_rows"]["count"] for kind in ("nan", "inf", "zero", "tiny")) for m in rows]
    norms = [m["norm"] or {} for m in rows]
    spans = [{"mean": norm.get("median"), "low": norm.get("low"), "high": norm.get("high")} for norm in norms]
    return [
        [(f"{m['rows']:,}", f"{m['absent']:,} missing" if m["absent"] else "") for m in rows],
        [(f"{m['dim']:,}", m["dtype"]) for m in rows],
        [(f"{number:,}", "") for number in invalid],
        [(f"{m['duplicate_rows']:,}", "") for m in rows],
        column(spans),
        *(column([m[key] for m in rows]) for key in ("mean_cosine", "effective_rank", "uniformity")),
    ]


def _pair_columns(rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    return [
        [(f"{p['items']:,}", "") for p in rows],
        column([p["modality_gap_debiased"] for p in rows]),
        column([p["modality_gap"] for p in rows]),
        column([p["gap_fraction"] for p in rows], "percent"),
        column([p["true_pair_cosine"] for p in rows]),
        column([p["random_pair_cosine"] for p in rows]),
        column([p["auc"] for p in rows], "percent"),
        _matchcolumn([p.get("match") or {} for p in rows]),
    ]


def _matchcolumn(matches: Sequence[Mapping[str, Any]]) -> list[Cell]:
    cosines = column([found.get("cosine") for found in matches])
    reached = [
        f"{100 * found['true_fraction']:.0f} %, {100 * found['random_fraction']:.1f} %"
        if found.get("cosine") is not None
        else ""
        for found in matches
    ]
    return [(value, small) for (value, _), small in zip(cosines, reached, strict=True)]


def _direction_columns(rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    chance, hubs = [d["chance"] for d in rows], [d["hubness"] for d in rows]
    skewness = column([found["skewness"] for found in hubs])
    return [
        [(f"{d['queries']:,}", "") for d in rows],
        column([d["recall@1"] for d in rows], "percent"),
        column([d["recall@10"] for d in rows], "percent"),
        column([d["mrr"] for d in rows]),
        [(f"{d['median_rank']:,.0f}", "") for d in rows],
        [(f"{100 * c['recall@1']:.2f} %", f"R@10 {100 * c['recall@10']:.1f} %") for c in chance],
        [(s[0], f"{100 * h['antihub_fraction']:.0f} % never found") for s, h in zip(skewness, hubs, strict=True)],
    ]
