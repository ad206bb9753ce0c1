"""A diagnosis as `results.json`, schema 1: one run of the objective "given", and beside it findings and numbers."""

from typing import Any

from unialign.diagnostics._diagnose import DiagnosisReport
from unialign.experiments import describe_metrics
from unialign.io import describe_environment

__all__ = ["make_results"]


def make_results(diagnosis: DiagnosisReport, *, seconds: float) -> dict[str, Any]:
    """The content of `results.json`."""
    details, numbers = diagnosis.details, diagnosis.numbers
    settings = details["settings"]
    chance = [d["chance"]["recall@1"] for d in numbers["directions"].values()]
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {
            "name": details["name"],
            "fingerprint": diagnosis.fingerprint,
            "items": numbers["items"],
            "modalities": list(numbers["modalities"]),
            "kinds": details["kinds"],
            "sources": details["sources"],
            "ids": details["ids"],
            "labels": details["labels"],
        },
        "protocol": {
            "name": "diagnosis: every row read once; geometry and retrieval on a random sample of items",
            "k": [1, 10],
            "recall": "hit rate: share of queries with a positive among the first k",
            "positives": "equal ids; rows equal number by number never count as wrong answers",
            "ties": "expected",
            "pool": settings["sample"],
            "chance_recall@1": sum(chance) / len(chance) if chance else None,
            "directions": len(numbers["directions"]),
            "bootstrap": {
                "resamples": settings["resamples"],
                "level": settings["level"],
                "unit": "items, those of one id together",
            },
            "seed": settings["seed"],
            "selection": "nothing was trained",
        },
        "objectives": {"given": {"label": "as given", "note": "", "settings": {}, "parameters": None}},
        "metrics": {name: about for name, about in describe_metrics().items() if name in diagnosis.summary},
        "runs": [
            {
                "objective": "given",
                "seed": 0,
                "metrics": {name: value["mean"] for name, value in diagnosis.summary.items()},
                "directions": details["directions"],
                "seconds": seconds,
                "warnings": [],
                "folder": ".",
            }
        ],
        "summary": {"given": diagnosis.summary},
        "comparisons": [],
        "reproduce": "unialign diagnose --config config.yaml --out again",
        **diagnosis.to_dict(),
        "sketch": details["sketch"],
    }
