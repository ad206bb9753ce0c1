"""Implementation of `unialign compare` and `unialign demo`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unialign.cli._anchors import ANCHOR, describe_anchors, has_anchor
from unialign.cli._console import RunProgress, chosen_workers, echo, shown
from unialign.cli._plans import ComparisonPlan
from unialign.config import CompareConfig, ComparisonEntry, TrainConfig
from unialign.experiments import compare, make_entry, open_store, prepare_data
from unialign.losses import initialization
from unialign.report import text_table, verdict_lines, write_report

__all__ = ["configure", "run_comparison"]

# Objectives that train badly from random weights start with InfoNCE, as GRAM's authors do; the total steps stay equal.
_INFONCE_WARMUP = 0.5


def configure(comparison: ComparisonPlan, out: Path) -> CompareConfig:
    """Build the configuration of a comparison; data from files are copied into the results folder."""
    data = prepare_data(comparison.sources, out, "comparison")
    return (_new if comparison.file is None else _repeated)(comparison, data)


def run_comparison(
    config: CompareConfig,
    out: Path,
    workers: int | None,
    *,
    extend: Callable[[CompareConfig, Path], None] | None = None,
) -> int:
    """Train, evaluate, print table and verdict, and write the report; `extend` adds further content for the report."""
    total = len(config.entries) * len(config.seeds)
    workers = chosen_workers(workers, total)
    labels = {key: entry.label for key, entry in config.entries.items()}
    anchors = describe_anchors(entry.train for entry in config.entries.values())
    echo(f"{config.data}: {', '.join(labels.values())}, {anchors}, into {shown(out)}")
    echo(f"seeds {' '.join(map(str, config.seeds))}: {total} runs, {workers} at a time")
    started = time.perf_counter()
    try:
        with RunProgress(total, labels) as progress:
            results = compare(config, out, workers=workers, on_run=progress)
        if extend is not None:
            write_report(out)  # Write the report first: the comparison is complete even if `extend` fails.
            extend(config, out)
    except KeyboardInterrupt:
        kept = f"finished runs are kept in {shown(out)}, the same command continues"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None
    report = write_report(out)
    echo()
    echo(text_table(results))
    echo()
    for line in verdict_lines(results):
        echo(line)
    echo()
    echo(f"{time.perf_counter() - started:.0f} s. Report: {shown(report)}")
    return 0


def _repeated(comparison: ComparisonPlan, data: str) -> CompareConfig:
    config = comparison.file
    assert config is not None
    if data != config.data:
        config = config.replace(data=data, fingerprint=None)
    entries = {
        key: entry.replace(train=_with_settings(entry.train, comparison.training))
        for key, entry in config.entries.items()
        if not comparison.objectives or key in comparison.objectives
    }
    if comparison.objectives:
        entries = {key: entries[key] for key in comparison.objectives}
    return config.override({"entries": entries, **comparison.settings})


def _new(comparison: ComparisonPlan, data: str) -> CompareConfig:
    # Use one anchor for all objectives that accept one, since some require it.
    modalities = comparison.training.get("modalities") or open_store(data, None, None).modalities
    settings = {ANCHOR: modalities[0]} | comparison.training
    entries: dict[str, ComparisonEntry] = {}
    for name in comparison.objectives:
        warmup = {"infonce_warmup_ratio": _INFONCE_WARMUP} if initialization(name) == "contrastive" else {}
        entries[name] = make_entry(_with_settings(TrainConfig(objective=name), warmup | settings))
    return CompareConfig.from_dict(
        {"data": data, "entries": entries, "selection": "as given, not tuned", **comparison.settings}
    )


def _with_settings(train: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """Return `override(...)` of the settings, without the anchor if the objective has none."""
    return train.override(
        {key: value for key, value in settings.items() if key != ANCHOR or has_anchor(train.objective)}
    )
