"""Build and write `results.json`, schema 1."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unialign._plain_text import repeat_command
from unialign.config import CompareConfig, ComparisonEntry, closed_form_of, stated_settings
from unialign.data import EmbeddingStore
from unialign.evaluation import all_metrics
from unialign.experiments._run import RunRecord, evaluated_rows
from unialign.experiments._verdicts import LEVEL, compare_entries, summarize
from unialign.io import describe_environment, finite, replace_file


def make_results(
    config: CompareConfig,
    store: EmbeddingStore,
    records: Mapping[tuple[str, int], RunRecord],
    *,
    command: Literal["compare", "train", "evaluate"] = "compare",
    settings: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] = "",
) -> dict[str, Any]:
    """Return the content of `results.json` for finished runs.

    Args:
        records: (entry, seed) -> finished run.
        command: `unialign` command that reproduces the results from the folder's `config.yaml`.
        settings: training settings of a space that was only evaluated; None: the settings of the entries.
        out: results folder, as seen from the working directory.
    """
    evaluations = {key: [records[key, seed].evaluation for seed in config.seeds] for key in config.entries}
    first = next(iter(config.entries))
    rows = evaluated_rows(store, config.split, evaluations[first][0].items)
    summary, resampled = summarize(evaluations, store.groups[rows], resamples=config.resamples)
    directions = sum("+" not in name for name in evaluations[first][0].directions)
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": _described(store, config, records),
        "protocol": _protocol(config, store, directions, queries=len(rows)),
        "objectives": {
            key: {
                "label": entry.label,
                "note": _note(entry, records[key, config.seeds[0]]),
                "settings": stated_settings(entry.train) if settings is None else dict(settings),
                "parameters": records[key, config.seeds[0]].parameters,
            }
            for key, entry in config.entries.items()
        },
        "metrics": {name: text for name, text in describe_metrics().items() if name in summary[first]},
        "runs": [
            {
                "objective": key,
                "seed": seed,
                "metrics": records[key, seed].evaluation.metrics,
                "directions": records[key, seed].evaluation.directions,
                "seconds": records[key, seed].seconds,
                "warnings": records[key, seed].warnings,
                "folder": run_folder(key, seed) if command == "compare" else ".",
                **_closed_form(records[key, seed]),
            }
            for key in config.entries
            for seed in sorted(config.seeds)
        ],
        "summary": summary,
        "reproduce": repeat_command(command, out),
        "comparisons": compare_entries(first, evaluations, resampled),
    }


def _described(
    store: EmbeddingStore, config: CompareConfig, records: Mapping[tuple[str, int], RunRecord]
) -> dict[str, Any]:
    found = describe_data(store, split=config.split)
    for record in records.values():
        found["columns"] |= dict(record.columns)
    return found


def _note(entry: ComparisonEntry, record: RunRecord) -> str:
    selection = (record.closed_form or {}).get("selection")
    if selection is None or closed_form_of(entry.train) is None:
        return entry.note
    return "; ".join(filter(None, (entry.note, f"source of the settings: {selection['source']}")))


def _closed_form(record: RunRecord) -> dict[str, Any]:
    return {} if record.closed_form is None else {"closed_form": record.closed_form}


def run_folder(key: str, seed: int) -> str:
    return f"runs/{key}-seed{seed}"


def _protocol(config: CompareConfig, store: EmbeddingStore, directions: int, *, queries: int) -> dict[str, Any]:
    pool = len(store.rows(config.split))
    items = {"train": "training items", "val": "items of the validation split", "test": "unseen items"}[config.split]
    if pool == store.items:
        items = "all items, including training items if the space was trained on them"
    if queries < pool:
        items = f"a random sample of {queries:,} queries among {pool:,} candidates ({items})"
    return {
        "name": f"cross-modal retrieval of {items}, cosine, every ordered pair of modalities",
        "k": [1, 5, 10],
        "recall": "hit rate: fraction of queries with a positive among the first k",
        "ties": "expected",
        "pool": pool,
        **({"queries": queries} if queries < pool else {}),
        "chance_recall@1": 1 / pool,
        "directions": directions,
        "seeds": list(config.seeds),
        "bootstrap": {
            "resamples": config.resamples,
            "level": LEVEL,
            "unit": "groups of near-duplicate items",
            "seeds": "variance of the mean over seeds is added",
        },
        "tests": "two-sided paired bootstrap, Holm-corrected over primary metrics x baselines",
        "conflict_anchor": config.anchor,
        "selection": config.selection,
    }


def describe_data(store: EmbeddingStore, *, split: str) -> dict[str, Any]:
    """Return the entry `data` of `results.json`."""
    made = store.provenance.get("columns")
    # Provenance is free-form, so omit entries with unexpected types.
    columns = {name: made[name] for name in store.modalities if isinstance(made, Mapping) and name in made}
    columns = {name: dict(text) if isinstance(text, Mapping) else {"made": text} for name, text in columns.items()}
    sources = store.provenance.get("sources")
    return {
        "name": store.name,
        "fingerprint": store.fingerprint,
        "items": store.items,
        "modalities": list(store.modalities),
        "split": split,
        "test_items": len(store.rows(split)),
        "synthetic": [name for name, provenance in columns.items() if provenance.get("synthetic")],
        "description": str(store.provenance.get("title", "")),
        "sources": [_source(source) for source in (sources if isinstance(sources, list) else [])],
        "columns": columns,
    }


def _source(source: Any) -> str:
    if not isinstance(source, Mapping):
        return str(source)
    return f"{source.get('what', source.get('package', '?'))}: {source.get('license', 'license not stated')}"


def describe_metrics() -> dict[str, dict[str, Any]]:
    """Return the entry `metrics` of `results.json` for all metrics."""
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
    """Write JSON atomically; NaN and infinity, which JSON does not support, become null."""
    replace_file(path, json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
