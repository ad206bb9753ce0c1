"""Write the page of a bridge from its `results.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import number_format
from unialign.report._model import MetricEstimate, number
from unialign.report._results import read_results
from unialign.report._schema import clean
from unialign.report._tables import plain_rows
from unialign.report._template import fill


def write_bridge_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the bridge in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain a bridge.
    """
    target = Path(folder) / "report.html"
    results = read_results(folder, "bridge", "bridge", lambda found: isinstance(found.get("bridge"), dict))
    replace_file(target, fill("bridge.html.j2", context=_context(clean(results))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    found = results["bridge"]
    old, new = found["dims"]
    shares = {
        "same first 10 results": found["overlap"],
        f"true first 10 in the first {found['candidates']}": found["contained"],
    }
    rows = [(name, _estimate(share)) for name, share in shares.items()]
    percent = number_format([], unit="percent")
    return {
        "title": f"Bridge of {results['data']['name']}",
        "facts": [
            count(found["items"], "row"),
            count(found["pairs"], "pair"),
            f"dim {old} to {new}",
            f"map: {found['method']}",
        ],
        "verdict": found["verdict"],
        "reasons": found["reasons"],
        "chart": labeled_bars("shares", "Expected shares", percent, rows),
        "share_rows": [
            (name, percent.with_unit(e.mean), percent.interval_with_unit(e.low, e.high)) for name, e in rows
        ],
        "methods": [(name, f"{number(error):.3f}", name == found["method"]) for name, error in found["errors"].items()],
        "levels": [_level(level) for level in found["levels"]],
        "fingerprints": [("old model", found["old_fingerprint"]), ("new model", found["new_fingerprint"])],
        "protocol": plain_rows(results["protocol"]),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _estimate(share: Mapping[str, Any]) -> MetricEstimate:
    return MetricEstimate(number(share["estimate"]), number(share["low"]), number(share["high"]))


def _level(level: Mapping[str, Any]) -> tuple[str, list[str]]:
    percent = number_format([], unit="percent")
    cells = [percent.with_unit(number(level[key])) for key in ("old", "mapped", "candidates")]
    return str(level["task"]), [*cells, f"{level['queries']:,}"]
