"""Print the progress of `unialign train`, and write its results."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unialign.cli._anchors import describe_anchors
from unialign.cli._console import echo, shown
from unialign.cli._mixture_data import write_source_metrics
from unialign.cli._single_run import finish
from unialign.cli._space_card import describe_space
from unialign.config import CompareConfig, ComparisonEntry, TrainConfig, closed_form_of
from unialign.data import EmbeddingStore
from unialign.experiments import RunRecord
from unialign.losses import display_name, initialization
from unialign.train import newest_checkpoint


def print_header(
    data: str, modalities: Sequence[str], config: TrainConfig, note: str, out: Path, *, processes: int
) -> None:
    newest = newest_checkpoint(out / "checkpoints")
    if (out / "space" / "config.json").exists():
        echo(f"the run in {shown(out)} is already finished; nothing to train")
    elif newest is not None:
        echo(f"continuing from {newest.name}")
    if note:
        echo(note)
    if config.epochs and initialization(config.objective) == "contrastive" and not config.infonce_warmup_ratio:
        echo(
            f"note: {display_name(config.objective)} trains poorly from random weights; use "
            "--infonce-warmup-ratio 0.5 to start with InfoNCE"
        )
    over = f"{_name(config)} over {', '.join(modalities)}"
    together = "" if processes == 1 else f"on {processes} processes, "
    echo(f"{data}: {over}, {describe_anchors([config])}, seed {config.seed}, {together}into {shown(out)}")


def _name(config: TrainConfig) -> str:
    return closed_form_of(config) or config.objective


def write_results(
    data: str, store: EmbeddingStore, config: TrainConfig, record: RunRecord, options: argparse.Namespace
) -> None:
    for warning in record.warnings:
        echo(f"health: {warning['message']}")
    comparison = CompareConfig(
        data=data,
        entries={_name(config): ComparisonEntry(label=_name(config), train=config)},
        seeds=(config.seed,),
        split=options.split,
        selection="as given, not tuned",
    )
    results = finish(options.out, comparison, store, record, command="train")
    describe_space(options.out / "space", results)
    if store.sampling is not None:
        write_source_metrics(store, options)
    echo(f"Space: {shown(options.out / 'space')}")
