"""Implementation of `unialign evaluate`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unialign._plain_text import count
from unialign.cli._console import echo, shown
from unialign.cli._media import is_media
from unialign.cli._single_run import finish
from unialign.cli._space_data import store_for_space
from unialign.config import CompareConfig, ComparisonEntry, EvaluateConfig, TrainConfig
from unialign.errors import DataError
from unialign.experiments import RunRecord, evaluate_space, open_run_dir
from unialign.space import Space


def evaluate(config: EvaluateConfig, sources: Sequence[str], options: argparse.Namespace) -> int:
    """Measure the space, write the report, and return the exit status."""
    space, out = Space.from_pretrained(config.space), options.out
    store, config = store_for_space(space, config, sources, options, "evaluation", split=config.split)
    data = config.data
    shared = tuple(name for name in space.modalities if name in store.columns)
    if len(shared) < 2:
        raise DataError(
            f"the space and {data} must share at least two modalities; the space has {', '.join(space.modalities)}, "
            f"and {data} has {', '.join(store.columns)}"
        )
    store = store.select(shared)
    items = len(store.rows(config.split))
    if items < 2:
        raise DataError(f"the {config.split!r} split of {data} has {count(items, 'item')}; at least 2 are needed")
    open_run_dir(out, "evaluation", config.to_dict())
    if items == store.items and is_media(sources, options):
        which = f"{config.split} split, all {items:,} items"  # other items were not embedded
    elif items == store.items:
        echo(
            f"all {items:,} items are evaluated, including training items if the space was trained on them; add an "
            "array `split` to the files to evaluate held-out items only"
        )
        which = f"all {items:,} items"
    else:
        which = f"{config.split} split, {items:,} of {store.items:,} items"
    if config.sample is not None and config.sample < items:
        which = f"{config.sample:,} random queries among {which.removeprefix('all ')}"
    echo(f"{data}, {which}: {', '.join(shared)}, into {shown(out)}")
    record = RunRecord(
        seconds=0.0,
        parameters=sum(p.numel() for p in space.parameters()),
        warnings=[],
        evaluation=evaluate_space(space, store, config.split, out, anchor=config.anchor, sample=config.sample),
    )
    comparison = CompareConfig(
        data=data,
        entries={"space": ComparisonEntry(label=Path(config.space).name, train=TrainConfig(modalities=shared))},
        seeds=(0,),
        split=config.split,
        anchor=config.anchor,
        resamples=config.resamples,
        selection="an existing space; nothing was trained",
    )
    trained = space.metadata.get("training", {})
    finish(out, comparison, store, record, command="evaluate", settings=trained if isinstance(trained, dict) else {})
    return 0
