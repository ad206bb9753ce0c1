"""`unialign train`: one space."""

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import Any

from unialign.cli._console import say, shown, training_settings
from unialign.cli._one_run import finish
from unialign.data import names
from unialign.errors import ConfigError
from unialign.experiments import CompareConfig, Entry, open_store, read_yaml, with_settings
from unialign.experiments import run as run_once
from unialign.train import TrainConfig

__all__ = ["run"]


def run(options: Namespace) -> int:
    data, fingerprint, train = _config(options)
    store = open_store(data, train.modalities, fingerprint)
    say(f"{data}: {train.objective} over {', '.join(store.modalities)}, seed {train.seed}, into {shown(options.out)}")
    try:
        record = run_once(
            store,
            train,
            options.out,
            split=options.split,
            resume=options.resume,
            device=options.device,
            progress="auto",
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; a checkpoint is in {shown(options.out)}, the same command continues from it"
        ) from None
    for warning in record.warnings:
        say(f"health: {warning['message']}")
    entry = Entry(label=train.objective, train=train)
    config = CompareConfig(
        data=data,
        entries={train.objective: entry},
        seeds=(train.seed,),
        split=options.split,
        selection="as given, not tuned",
    )
    finish(options.out, config, store, record)
    say(f"Space: {shown(options.out / 'space')}")
    return 0


def _config(options: Namespace) -> tuple[str, str | None, TrainConfig]:
    """Data, the fingerprint it must have (None: any), and settings; what is given on the command line wins."""
    raw = read_yaml(options.config) if options.config else {}
    data, fingerprint = options.data, None
    if data is None and raw:
        data, fingerprint = _data_of(raw, options.config)
    if data is None:
        raise ConfigError("name the data to train on, `emoji` for one, or give --config")
    train = TrainConfig.from_dict(raw["train"]) if raw else TrainConfig()
    settings = training_settings(options)
    if options.objective is not None and options.objective != train.objective:
        # Another objective has other options; those of the file would not fit it.
        train = dataclasses.replace(train, objective=options.objective, objective_options={})
    if options.seed is not None:
        settings["seed"] = options.seed
    return data, fingerprint, with_settings(train, settings)


def _data_of(raw: dict[str, Any], source: Path) -> tuple[str, str]:
    made = raw.get("data")
    if not isinstance(made, dict) or "fingerprint" not in made or not isinstance(raw.get("train"), dict):
        raise ConfigError(f"{source}: expected `data` and `train`, as `unialign train` writes them into its --out")
    where = made["name"] if made.get("name") in names() else made.get("path")
    if where is None:
        raise ConfigError(f"{source}: that run used arrays in memory; name the data on the command line")
    return str(where), str(made["fingerprint"])
