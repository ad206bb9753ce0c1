"""Describe a repair as the content of `results.json`."""

from typing import Any

from unialign.correction._repair import Repair
from unialign.correction._text import answer
from unialign.io import describe_environment


def make_results(repair: Repair, *, seconds: float, out: str) -> dict[str, Any]:
    metadata = repair.metadata
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {**metadata["data"], "modalities": list(repair.modalities)},
        "protocol": {**metadata["settings"], **metadata["fitted"], "rows": metadata["rows"], "seconds": seconds},
        "answer": answer(repair),
        "choice": repair.choice,
        "index_choice": repair.index_choice,
        "table": repair.table,
        "candidates": repair.candidates,
        "reproduce": f"unialign repair --config {out}/config.yaml --out {out}",
    }
