"""`unialign train`: one space, on one process or on all those that torchrun or SLURM started."""

import dataclasses
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unialign.cli._anchors import anchor_words, with_anchor
from unialign.cli._console import echo, shown, training_settings
from unialign.cli._one_run import finish
from unialign.data import list_datasets
from unialign.distributed import init as join_job
from unialign.errors import ConfigError
from unialign.experiments import (
    CompareConfig,
    Entry,
    open_run_dir,
    open_store,
    override,
    read_yaml,
    run as run_once,
)
from unialign.losses import display_name, initialization
from unialign.train import TrainConfig, check_fit, fit, newest_checkpoint

__all__ = ["run"]


def run(options: Namespace) -> int:
    with join_job(backend="gloo" if options.device == "cpu" else "auto") as place:
        return _run(options, rank=place.rank, processes=place.world_size)


def _run(options: Namespace, *, rank: int, processes: int) -> int:
    data, fingerprint, train = _config(options)
    store = open_store(data, train.modalities, fingerprint)
    train, note = with_anchor(train, store.modalities)
    check_fit(store, train)
    if rank > 0:
        # Process 0 speaks, writes and measures; the others train with it.
        with _saying_where(options.out):
            fit(store, train, out=options.out, resume=options.resume, device=options.device, progress="none")
        return 0
    open_run_dir(options.out, "run")
    newest = newest_checkpoint(options.out / "checkpoints")
    if newest is not None and options.resume != "never":
        echo(f"continuing from {newest.name}")
    if note:
        echo(note)
    if initialization(train.objective) == "contrastive" and not train.infonce_warmup_ratio:
        echo(
            f"note: {display_name(train.objective)} trains badly from scratch; --set infonce_warmup_ratio=0.5 begins with InfoNCE"
        )
    over = f"{train.objective} over {', '.join(store.modalities)}"
    together = "" if processes == 1 else f"on {processes} processes, "
    echo(f"{data}: {over}, {anchor_words([train])}, seed {train.seed}, {together}into {shown(options.out)}")
    with _saying_where(options.out):
        record = run_once(
            store,
            train,
            options.out,
            split=options.split,
            resume=options.resume,
            device=options.device,
            progress="auto",
        )
    for warning in record.warnings:
        echo(f"health: {warning['message']}")
    entry = Entry(label=train.objective, train=train)
    config = CompareConfig(
        data=data,
        entries={train.objective: entry},
        seeds=(train.seed,),
        split=options.split,
        selection="as given, not tuned",
    )
    finish(options.out, config, store, record, command="train")
    echo(f"Space: {shown(options.out / 'space')}")
    return 0


@contextmanager
def _saying_where(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; a checkpoint is in {shown(out)}, the same command continues from it"
        ) from None


def _config(options: Namespace) -> tuple[str, str | None, TrainConfig]:
    """Data, the fingerprint it must have (None: any), and settings; what is given on the command line wins."""
    data, fingerprint, train = options.data, None, TrainConfig()
    if options.config:
        written_for, written_on, train = _read(options.config)
        if data is None:
            data, fingerprint = written_for, written_on
    if data is None:
        raise ConfigError("name the data to train on, `emoji` for one, or give --config")
    settings = training_settings(options)
    if options.objective is not None and options.objective != train.objective:
        # Another objective has other options; those of the file would not fit it.
        train = dataclasses.replace(train, objective=options.objective, objective_options={})
    if options.seed is not None:
        settings["seed"] = options.seed
    return data, fingerprint, override(train, settings)


def _read(source: Path) -> tuple[str | None, str, TrainConfig]:
    """What a run's `config.yaml` says: data, its fingerprint, settings."""
    raw = read_yaml(source)
    made, settings = raw.get("data"), raw.get("train")
    if not (isinstance(made, dict) and isinstance(settings, dict) and isinstance(made.get("fingerprint"), str)):
        raise ConfigError(f"{source}: expected `data` and `train`, as `unialign train` writes them into its --out")
    if "start" in raw:
        raise ConfigError(
            f"{source} is of a run that continued from another space (`fit(..., start=...)`); this command begins anew "
            f"and could not repeat it"
        )
    # A shipped set is found by its name wherever the package lies; a run on arrays in memory has no path.
    where = made["name"] if made.get("name") in list_datasets() else made.get("path")
    return where if isinstance(where, str) else None, made["fingerprint"], TrainConfig.from_dict(settings)
