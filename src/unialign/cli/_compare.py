"""Implementation of `unialign compare` and `unialign demo`."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign.cli._anchors import ANCHOR, default_anchor, describe_anchors, has_anchor
from unialign.cli._console import chosen_workers, echo, run_progress, shown
from unialign.config import (
    CLOSED_FORMS,
    CompareConfig,
    ComparisonEntry,
    TrainConfig,
    closed_form_config,
    closed_form_settings,
)
from unialign.experiments import compare, make_entry, open_store
from unialign.losses import initialization
from unialign.report import text_table, verdict_lines, write_report

# Fraction of the steps that train with InfoNCE first, for objectives that train poorly from random weights. GRAM's
# authors also start from a contrastively trained model. The total number of steps does not change.
_INFONCE_WARMUP = 0.5


def run_comparison(
    config: CompareConfig,
    out: Path,
    workers: int | None,
    *,
    extend: Callable[[CompareConfig, Path], None] | None = None,
) -> int:
    total = len(config.entries) * len(config.seeds)
    workers = chosen_workers(workers, total)
    labels = {key: entry.label for key, entry in config.entries.items()}
    anchors = describe_anchors(entry.train for entry in config.entries.values())
    echo(f"{config.data}: {', '.join(labels.values())}, {anchors}, into {shown(out)}")
    echo(f"seeds {' '.join(map(str, config.seeds))}: {total} runs, {workers} at a time")
    started = time.perf_counter()
    try:
        with run_progress(total, labels) as progress:
            results = compare(config, out, workers=workers, on_run=progress)
        if extend is not None:
            write_report(out)  # Write the report first, so that the comparison is complete even if `extend` fails.
            extend(config, out)
    except KeyboardInterrupt:
        kept = f"finished runs are kept in {shown(out)}; run the same command again to continue"
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


def new_comparison(
    data: str, objectives: Sequence[str], training: Mapping[str, Any], settings: Mapping[str, Any]
) -> CompareConfig:
    modalities = training.get("modalities") or open_store(data, None, None).modalities
    entries: dict[str, ComparisonEntry] = {}
    for name in objectives:
        if name in CLOSED_FORMS:
            entries[name] = make_entry(closed_form_config(name, training))
            continue
        warmup = {"infonce_warmup_ratio": _INFONCE_WARMUP} if initialization(name) == "contrastive" else {}
        entries[name] = make_entry(
            _with_settings(
                TrainConfig(objective=name), {**warmup, ANCHOR: default_anchor(name, modalities), **training}
            )
        )
    return CompareConfig(data=data, entries=entries, selection="as given, not tuned", **settings)


def repeated_comparison(
    config: CompareConfig,
    data: str,
    objectives: Sequence[str],
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> CompareConfig:
    if data != config.data:
        config = config.replace(data=data, fingerprint=None)
    entries = {
        key: config.entries[key].replace(train=_with_settings(config.entries[key].train, training))
        for key in objectives
    }
    return config.override({"entries": entries, **settings})


def _with_settings(train: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Skip settings that a closed form does not use, and the anchor of objectives without one."""
    if train.epochs == 0:
        return train.override(closed_form_settings(train.to_dict(), settings))
    return train.override(
        {key: value for key, value in settings.items() if key != ANCHOR or has_anchor(train.objective)}
    )
