"""`unialign compare`: several objectives, several seeds, one table."""

import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unialign.cli._anchors import ANCHOR, anchor_words, has_anchor
from unialign.cli._console import RunProgress, chosen_workers, echo, shown, training_settings
from unialign.errors import ConfigError
from unialign.experiments import CompareConfig, Entry, compare, open_store, override, read_yaml
from unialign.losses import initialization
from unialign.report import text_table, verdict_lines, write_report
from unialign.train import TrainConfig

__all__ = ["run", "run_comparison"]

_OBJECTIVES = ("unialign", "infonce", "gram")
# Objectives that train badly from random weights continue from InfoNCE, as GRAM's authors do; same steps in all.
_WARM_START = 0.5


def run(options: Namespace) -> int:
    config = _from_file(options) if options.config else _from_options(options)
    return run_comparison(config, options.out, options.workers)


def run_comparison(
    config: CompareConfig, out: Path, workers: int | None, *, also: Callable[[CompareConfig, Path], None] | None = None
) -> int:
    """Train, evaluate, print table and verdict, write the report; `also` adds to the folder what the report shows."""
    total = len(config.entries) * len(config.seeds)
    workers = chosen_workers(workers, total)
    labels = {key: entry.label for key, entry in config.entries.items()}
    anchors = anchor_words(entry.train for entry in config.entries.values())
    echo(f"{config.data}: {', '.join(labels.values())}, {anchors}, into {shown(out)}")
    echo(f"seeds {' '.join(map(str, config.seeds))}: {total} runs, {workers} at a time")
    started = time.perf_counter()
    try:
        with RunProgress(total, labels) as progress:
            results = compare(config, out, workers=workers, on_run=progress)
        if also is not None:
            write_report(out)  # what is added may fail, and the comparison is done
            also(config, out)
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


def _from_file(options: Namespace) -> CompareConfig:
    config = CompareConfig.from_dict(read_yaml(options.config), source=str(options.config))
    if options.data is not None:
        config = config.replace(data=options.data, fingerprint=None)
    if options.objectives:
        missing = [name for name in options.objectives if name not in config.entries]
        if missing:
            raise ConfigError(f"{options.config} has no entry {', '.join(missing)}; it has {', '.join(config.entries)}")
        config = config.replace(entries={name: config.entries[name] for name in options.objectives})
    settings = training_settings(options)
    entries = {
        key: Entry(label=entry.label, note=entry.note, train=_with_settings(entry.train, settings))
        for key, entry in config.entries.items()
    }
    return _common(config.replace(entries=entries), options)


def _from_options(options: Namespace) -> CompareConfig:
    if options.data is None:
        raise ConfigError("name the data to compare on, `emoji` for one, or give --config")
    objectives = options.objectives or _OBJECTIVES
    if len(set(objectives)) < len(objectives):
        raise ConfigError(f"--objectives names one twice: {' '.join(objectives)}")
    # One anchor for all that have one: some have no other choice.
    anchor = (options.modalities or open_store(options.data, None, None).modalities)[0]
    settings = {ANCHOR: anchor} | training_settings(options)
    entries = {}
    for name in objectives:
        warm = {"infonce_warmup_ratio": _WARM_START} if initialization(name) == "contrastive" else {}
        train = _with_settings(TrainConfig(objective=name), warm | settings)
        entries[name] = Entry.of(train)
    return _common(CompareConfig(data=options.data, entries=entries, selection="as given, not tuned"), options)


def _with_settings(train: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """`override`, without the anchor for an objective that has none."""
    if not has_anchor(train.objective):
        settings = {key: value for key, value in settings.items() if key != ANCHOR}
    return override(train, settings)


def _common(config: CompareConfig, options: Namespace) -> CompareConfig:
    changes = {
        "seeds": options.seeds and tuple(options.seeds),
        "split": options.split,
        "resamples": options.resamples,
    }
    return config.replace(**{key: value for key, value in changes.items() if value is not None})
