"""Implementation of `unialign train`."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unialign.cli._anchors import describe_anchors, with_anchor
from unialign.cli._console import echo, shown
from unialign.cli._plans import TrainRun
from unialign.cli._single_run import finish
from unialign.config import CompareConfig, ComparisonEntry
from unialign.distributed import init as join_job
from unialign.experiments import open_run_dir, open_store, prepare_data, run as run_once
from unialign.losses import display_name, initialization
from unialign.train import check_fit, fit, newest_checkpoint, process_group_of

__all__ = ["train"]


def train(plan: TrainRun, options: argparse.Namespace) -> int:
    """Train on all processes of a job; process 0 evaluates and writes the results."""
    with join_job(backend="gloo" if options.device == "cpu" else "auto") as process:
        return _train(plan, options, rank=process.rank, processes=process.world_size)


def _train(plan: TrainRun, options: argparse.Namespace, *, rank: int, processes: int) -> int:
    data = process_group_of("auto").broadcast_from_rank0(lambda: prepare_data(plan.sources, options.out, "run"))
    store = open_store(data, plan.config.modalities, plan.fingerprint)
    config, note = with_anchor(plan.config, store.modalities)
    process_group_of("auto").broadcast_from_rank0(
        lambda: check_fit(store, config, out=options.out, resume=options.resume)
    )
    if rank > 0:
        with _checkpoint_named(options.out):
            fit(store, config, out=options.out, resume=options.resume, device=options.device, progress="none")
        return 0
    open_run_dir(options.out, "run")
    newest = newest_checkpoint(options.out / "checkpoints")
    if (options.out / "space" / "config.json").exists():
        echo(f"{shown(options.out)} holds this run, finished: nothing is trained")
    elif newest is not None:
        echo(f"continuing from {newest.name}")
    if note:
        echo(note)
    if initialization(config.objective) == "contrastive" and not config.infonce_warmup_ratio:
        echo(
            f"note: {display_name(config.objective)} trains badly from random weights; --infonce-warmup-ratio 0.5 "
            "starts with InfoNCE"
        )
    over = f"{config.objective} over {', '.join(store.modalities)}"
    together = "" if processes == 1 else f"on {processes} processes, "
    echo(f"{data}: {over}, {describe_anchors([config])}, seed {config.seed}, {together}into {shown(options.out)}")
    with _checkpoint_named(options.out):
        record = run_once(
            store,
            config,
            options.out,
            split=options.split,
            resume=options.resume,
            device=options.device,
            progress="auto",
        )
    for warning in record.warnings:
        echo(f"health: {warning['message']}")
    comparison = CompareConfig(
        data=data,
        entries={config.objective: ComparisonEntry(label=config.objective, train=config)},
        seeds=(config.seed,),
        split=options.split,
        selection="as given, not tuned",
    )
    finish(options.out, comparison, store, record, command="train")
    echo(f"Space: {shown(options.out / 'space')}")
    return 0


@contextmanager
def _checkpoint_named(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; a checkpoint is in {shown(out)}, the same command continues from it"
        ) from None
