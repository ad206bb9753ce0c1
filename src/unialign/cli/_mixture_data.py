"""Open the sources of a mixture, and write the metrics of each source."""

import argparse
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from unialign._plain_text import table_lines
from unialign.cli._console import echo
from unialign.cli._items import open_items
from unialign.cli._media import is_media
from unialign.cli._mixture import MixtureChoice
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore, Mixture
from unialign.errors import ConfigError, DataError
from unialign.evaluation import evaluate
from unialign.experiments import DATA_FOLDER, open_store, prepare_data, write_json

__all__ = ["mixture_store", "prepared_sources", "write_source_metrics"]

RESULTS = "sources.json"


def prepared_sources(choice: MixtureChoice, config: TrainConfig, options: argparse.Namespace) -> dict[str, str]:
    """Return, for each source, the name or path of the data set that all processes open; media are embedded first."""
    return {name: _prepared(name, files, config, options) for name, files in choice.sources.items()}


def mixture_store(choice: MixtureChoice, paths: Mapping[str, str], config: TrainConfig) -> EmbeddingStore:
    """Return the store of the mixture with the modalities of the run.

    Raises:
        DataError: the fingerprint differs from the required one.
        ConfigError, ShapeError, DataError: see `Mixture`.
    """
    stores = {name: open_store(path, None, None) for name, path in paths.items()}
    mixture = Mixture(
        stores,
        weights=choice.weights,
        mode=choice.mode,
        epoch_steps=choice.epoch_steps,
        shared_ids=choice.shared_ids,
    )
    table = mixture.table
    assert isinstance(table, EmbeddingStore)
    if choice.fingerprint is not None:
        table.check_fingerprint(choice.fingerprint)
    return table if config.modalities is None else table.select(config.modalities)


def write_source_metrics(store: EmbeddingStore, options: argparse.Namespace) -> None:
    """Evaluate the items of each source among themselves, print R@1 and R@10, and write all metrics."""
    assert store.sampling is not None
    found = load_file(options.out / "embeddings.safetensors")
    rows_N = store.rows(options.split)
    results: dict[str, Any] = {}
    for source in store.sampling.items:
        own = store.sampling.rows(source)
        low, high = np.searchsorted(rows_N, (own.start, own.stop))
        try:
            results[source] = _metrics(store, found, rows_N, slice(int(low), int(high)))
        except DataError:
            results[source] = {"items": int(high - low), "metrics": {}, "directions": {}}
    write_json(options.out / RESULTS, {"split": options.split, "sources": results})
    body = [
        [f"{source}: {direction}", *_percentages(values), f"{entry['items']:,}"]
        for source, entry in results.items()
        for direction, values in entry["directions"].items()
        if "+" not in direction
    ]
    echo()
    for line in table_lines(["items of one source, %", "R@1", "R@10", "items"], body):
        echo(line)


def _percentages(values: Mapping[str, float]) -> list[str]:
    return [f"{100 * values[name]:.1f}" for name in ("recall@1", "recall@10")]


def _metrics(store: EmbeddingStore, found: Mapping[str, torch.Tensor], rows_N: Any, part: slice) -> dict[str, Any]:
    rows = rows_N[part]
    masks = {name: store.present(name)[rows] for name in store.modalities if name in found}
    names = [name for name, mask in masks.items() if mask.any()]
    labels = torch.from_numpy(store.labels[rows].copy())
    measured = evaluate(
        {name: found[name][part] for name in names},
        present={name: torch.from_numpy(masks[name].copy()) for name in names},
        ids=torch.from_numpy(store.ids[rows].copy()),
        labels=labels if bool((labels >= 0).any()) else None,
    )
    return {"items": len(rows), "metrics": measured.metrics, "directions": measured.directions}


def _prepared(name: str, files: tuple[str, ...], config: TrainConfig, options: argparse.Namespace) -> str:
    own = argparse.Namespace(**{**vars(options), "data": list(files), "out": options.out / DATA_FOLDER / name})
    if not is_media(files, own) or (len(files) == 1 and (Path(files[0]) / "store.json").is_file()):
        return prepare_data(files, own.out, "run", id=options.id)
    if options.id is not None:
        raise ConfigError("--id joins files of embeddings; for media use --id-column")
    from unialign.cli._embedded import embedded_store

    modalities = open_items(files, own).modalities
    own.encode = [entry for entry in options.encode if _matches(entry, modalities)]
    chosen = None if config.modalities is None else tuple(one for one in config.modalities if one in modalities)
    own_config = config.replace(modalities=chosen)
    echo(f"source {name}:")
    return embedded_store(files, own_config, own)


def _matches(entry: str, modalities: tuple[str, ...]) -> bool:
    """Return whether an encoder is for a modality of this source rather than of another source."""
    key = entry.partition("=")[0]
    return any(name == key or fnmatchcase(name, key) for name in modalities)
