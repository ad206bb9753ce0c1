"""`results.json`, schema 1, and the small files beside it. All are written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.data import EmbeddingStore
from unialign.evaluation import all_metrics
from unialign.io import finite, replace_file

__all__ = ["describe_data", "describe_metrics", "write_json"]


def describe_data(store: EmbeddingStore, *, split: str, test_items: int) -> dict[str, Any]:
    made = store.provenance.get("columns")
    # Provenance is free text of whoever made the data; the report shows what it can.
    columns = {name: made[name] for name in store.modalities if isinstance(made, Mapping) and name in made}
    columns = {name: dict(text) if isinstance(text, Mapping) else {"made": text} for name, text in columns.items()}
    sources = store.provenance.get("sources")
    return {
        "name": store.name,
        "fingerprint": store.fingerprint,
        "items": store.items,
        "modalities": list(store.modalities),
        "split": split,
        "test_items": test_items,
        "synthetic": [name for name, provenance in columns.items() if provenance.get("synthetic")],
        "description": str(store.provenance.get("title", "")),
        "sources": [_source(source) for source in (sources if isinstance(sources, list) else [])],
        "columns": columns,
    }


def _source(source: Any) -> str:
    if not isinstance(source, Mapping):
        return str(source)
    return f"{source.get('what', source.get('package', '?'))}: {source.get('licence', 'licence not stated')}"


def describe_metrics() -> dict[str, dict[str, Any]]:
    return {
        name: {
            "label": metric.label,
            "description": metric.description,
            "better": metric.better,
            "higher_is_better": {"higher": True, "lower": False}.get(metric.better),
            "unit": metric.unit,
            "primary": metric.primary,
        }
        for name, metric in all_metrics().items()
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Atomic; NaN and infinity become null, which JSON has no words for."""
    replace_file(path, json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
