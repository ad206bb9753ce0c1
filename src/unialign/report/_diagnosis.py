"""The page of a diagnosis: the answer, the findings, pictures, numbers. Made of the folder's `results.json` alone."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from unialign.errors import DataError
from unialign.io import replace_file
from unialign.report import _cosines, _heatmap, _maps
from unialign.report._bars import labelled_bars
from unialign.report._format import DASH, NumberFormat, count, number_format
from unialign.report._model import DataInfo, Estimate
from unialign.report._projection import PCAMap
from unialign.report._schema import clean
from unialign.report._tables import plain_rows
from unialign.report._template import fill

__all__ = ["write_diagnosis_report"]

_SIGNS = {"problem": "✗ problem", "warning": "▲ warning", "note": "● note", "ok": "✓ ok"}
# More panels than this would be a wall; the tables have them all.
_PANELS = 12
_PERCENT = NumberFormat(percent=True, decimals=1)


def write_diagnosis_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` about the diagnosis in `folder` and return its path; DataError if there is none."""
    source, target = Path(folder) / "results.json", Path(folder) / "report.html"
    try:
        results = json.loads(source.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read ({error}); run `unialign diagnose` again") from None
    if not isinstance(results, dict) or not isinstance(results.get("findings"), list):
        raise DataError(f"{source} is no diagnosis: it has no findings; run `unialign diagnose` for one")
    replace_file(target, render(clean(results)))
    return target


def render(results: Mapping[str, Any]) -> str:
    """The page of a diagnosis's `results.json`."""
    return fill("diagnosis.html.j2", styles=("page.css", "diagnosis.css"), context=_context(results))


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    numbers, data = results["numbers"], _data(results)
    tally = Counter(finding["severity"] for finding in results["findings"])
    said = [count(tally[s], s) for s in ("problem", "warning", "note") if tally[s]]
    sampled, items = numbers["sampled"], numbers["items"]
    many = "all of them" if sampled == items else f"{sampled:,} of them"
    return {
        "title": f"Checkup of {data.name}",
        "facts": [count(items, "item"), count(len(data.modalities), "modality", "modalities"), *said,
                  f"looked closely at {many}"],
        "answer": results["answer"],
        "severity": next((s for s in _SIGNS if tally[s]), "ok"),
        "findings": [finding | {"sign": _SIGNS[finding["severity"]]} for finding in results["findings"]],
        "markers": _maps.marker_definitions(data.modalities),
        "legend": [(_maps.legend_mark(i), name) for i, name in enumerate(data.modalities)],
        "map": _map(results, data),
        "heat": _heat(numbers, data),
        "gap": _gap(numbers),
        "cosines": _cosine_panels(results.get("sketch", {})),
        "pairs_shown": _PANELS,
        "modality_rows": _modality_rows(numbers),
        "pair_rows": _pair_rows(numbers),
        "direction_rows": _direction_rows(numbers),
        "line": results["issue_summary"],
        "sources": list(results["data"]["sources"].items()),
        "fingerprint": data.fingerprint,
        "protocol": plain_rows(results["protocol"]),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }  # fmt: skip


def _data(results: Mapping[str, Any]) -> DataInfo:
    data = results["data"]
    return DataInfo(
        name=data["name"],
        fingerprint=data["fingerprint"],
        items=data["items"],
        modalities=tuple(data["modalities"]),
        split="",
        test_items=None,
        synthetic=frozenset(),
        description="",
        sources=(),
        made={},
    )


def _map(results: Mapping[str, Any], data: DataInfo) -> dict[str, Any] | None:
    sketch = results.get("sketch") or {}
    if not sketch:
        return None
    points = {
        name: np.array([[math.nan, math.nan] if xy is None else xy for xy in sketch["map"][name]], dtype=np.float64)
        for name in data.modalities
    }
    first, second = sketch["explained"]
    projection = PCAMap(points, (first, second))
    names = [f"row {row:,}" for row in sketch["rows"]]
    drawn = list(range(len(names)))
    chart = _maps.space_map(
        "map", "", data, projection, _maps.reach([projection]), names, drawn, title="Map of the sample"
    )
    note = f"axes hold {100 * first:.0f} % and {100 * second:.0f} % of the variance; {len(names):,} items"
    return {"chart": chart, "note": note}


def _heat(numbers: Mapping[str, Any], data: DataInfo) -> dict[str, Any] | None:
    values: dict[tuple[str, str], float] = {}
    for a in data.modalities:
        for b in data.modalities:
            direction = numbers["directions"].get(f"{a}->{b}")
            if direction is not None:
                values[a, b] = direction["recall@1"]["mean"]
    if not values:
        return None
    top = max(max(values.values()), 0.01)
    return {"chart": _heatmap.heatmap("heat", "given", "R@1", data, values, top),
            "scale": _heatmap.scale_bar(top, "R@1")}  # fmt: skip


def _gap(numbers: Mapping[str, Any]) -> Markup | None:
    pairs = {name: p for name, p in numbers["pairs"].items() if "modality_gap_debiased" in p}
    if not pairs:
        return None
    wide = sorted(pairs, key=lambda name: -pairs[name]["modality_gap_debiased"]["mean"])[:_PANELS]
    rows = [(name, _estimate(pairs[name]["modality_gap_debiased"])) for name in wide]
    return labelled_bars("gap", "Debiased gap", number_format([e.high for _, e in rows], unit="number"), rows)


def _cosine_panels(sketch: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    panels = list(sketch.get("cosines", {}).items())[:_PANELS]
    return [(name, _cosines.cosine_panel(f"cosines{i}", name, histogram)) for i, (name, histogram) in enumerate(panels)]


def _estimate(value: Mapping[str, Any] | None) -> Estimate:
    numbers = {
        key: math.nan if not value or value[key] is None else float(value[key]) for key in ("mean", "low", "high")
    }
    return Estimate(**numbers)


def _cell(value: Mapping[str, Any] | float | None, look: NumberFormat | None = None) -> tuple[str, str]:
    """A number as the table has it, and its interval."""
    if isinstance(value, Mapping):
        estimate = _estimate(value)
        look = look or number_format([estimate.mean], unit="number")
        known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
        return look.with_unit(estimate.mean), f"{look.number(estimate.low)} to {look.number(estimate.high)}" if known else ""
    if value is None:
        return DASH, ""
    return (look or number_format([value], unit="number")).with_unit(value), ""


def _modality_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, m in numbers["modalities"].items():
        norm = m["norm"]
        broken = sum(m[f"{kind}_rows"]["count"] for kind in ("nan", "inf", "zero", "short"))
        norms = (
            (_cell(norm["median"])[0], f"{_cell(norm['low'])[0]} to {_cell(norm['high'])[0]}") if norm else (DASH, "")
        )
        cells = [
            (f"{m['rows']:,}", f"{m['absent']:,} missing" if m["absent"] else ""),
            (f"{m['width']:,}", m["dtype"]),
            (f"{broken:,}", ""),
            (f"{m['repeated_rows']:,}", ""),
            norms,
            _cell(m["mean_cosine"]),
            _cell(m["effective_rank"]),
            _cell(m["uniformity"]),
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _pair_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, p in numbers["pairs"].items():
        if "items" not in p:
            continue
        cells = [
            (f"{p['items']:,}", ""),
            _cell(p["modality_gap_debiased"]),
            _cell(p["modality_gap"]),
            _cell(p["gap_share"], _PERCENT),
            _cell(p["true_pair_cosine"]),
            _cell(p["random_pair_cosine"]),
            _cell(p["beaten"], _PERCENT),
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _direction_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, d in numbers["directions"].items():
        chance, hubs = d["chance"], d["hubness"]
        cells = [
            (f"{d['queries']:,}", ""),
            _cell(d["recall@1"], _PERCENT),
            _cell(d["recall@10"], _PERCENT),
            _cell(d["mrr"]),
            (f"{d['median_rank']:,.0f}", ""),
            (f"{100 * chance['recall@1']:.2f} %", f"R@10 {100 * chance['recall@10']:.1f} %"),
            (_cell(hubs["skewness"])[0], f"{100 * hubs['antihub_share']:.0f} % never found"),
        ]
        rows.append({"name": name.replace("->", " → "), "cells": cells})
    return rows
