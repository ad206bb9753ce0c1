"""`unialign evaluate`: measure a trained space."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from unialign.cli._console import echo, shown
from unialign.cli._one_run import finish
from unialign.errors import ConfigError, DataError
from unialign.experiments import (
    EMBEDDINGS_FILE,
    CompareConfig,
    Entry,
    RunRecord,
    embed_split,
    evaluate_split,
    open_run_dir,
    open_store,
    read_yaml,
    save_embeddings,
)
from unialign.io import write_yaml
from unialign.space import Space
from unialign.train import TrainConfig

__all__ = ["run"]


def run(options: Namespace) -> int:
    settings = _settings(options)
    space = Space.from_pretrained(settings["space"])
    store = open_store(settings["data"], None, settings["fingerprint"])
    shared = tuple(name for name in space.modalities if name in store.columns)
    if len(shared) < 2:
        raise DataError(
            f"the space knows {', '.join(space.modalities)}, {settings['data']} has {', '.join(store.columns)}: "
            "at least two modalities must be in both"
        )
    store = store.select(shared)
    out, split, anchor = options.out, settings["split"], settings["anchor"]
    settings["fingerprint"] = store.fingerprint
    if open_run_dir(out, "evaluation") not in (None, settings):
        raise ConfigError(
            f"{out} holds another evaluation (its config.yaml differs); choose another --out or delete it"
        )
    write_yaml(out / "config.yaml", settings)
    echo(f"{settings['data']}, {split} split: {', '.join(shared)}, into {shown(out)}")
    embeddings = embed_split(space, store, split)
    record = RunRecord(
        seconds=0.0,
        parameters=sum(p.numel() for p in space.parameters()),
        warnings=[],
        evaluation=evaluate_split(embeddings, store, split, anchor=anchor),
    )
    config = CompareConfig(
        data=settings["data"],
        entries={"space": Entry(label=Path(settings["space"]).name, train=TrainConfig(modalities=shared))},
        seeds=(0,),
        split=split,
        anchor=anchor,
        resamples=settings["resamples"],
        selection="an existing space, nothing was trained",
    )
    save_embeddings(out / EMBEDDINGS_FILE, embeddings)
    trained = space.metadata.get("training", {})
    finish(out, config, store, record, command="evaluate", settings=trained if isinstance(trained, dict) else {})
    return 0


def _settings(options: Namespace) -> dict[str, Any]:
    """What to evaluate: the file's settings, if one is given, and over them those of the command line."""
    settings: dict[str, Any] = {"space": None, "data": None, "fingerprint": None, "split": "test", "anchor": None}
    settings["resamples"] = CompareConfig.resamples
    if options.config:
        raw = read_yaml(options.config)
        if unknown := sorted(set(raw) - set(settings)):
            raise ConfigError(f"{options.config}: unknown setting {', '.join(unknown)}; expected {', '.join(settings)}")
        settings |= raw
    given = {key: getattr(options, key) for key in ("space", "data", "split", "anchor", "resamples")}
    if given["data"] is not None:
        settings["fingerprint"] = None
    settings |= {key: value for key, value in given.items() if value is not None}
    if settings["space"] is None or settings["data"] is None:
        raise ConfigError("name the space and the data to evaluate, or give --config")
    return settings
