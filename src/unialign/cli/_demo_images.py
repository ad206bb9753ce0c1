"""Generate the images of `unialign demo` from spaces with frozen images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unialign.cli._anchors import ANCHOR, has_anchor
from unialign.cli._console import echo
from unialign.cli._generate_files import compared_rows, write_enlarged
from unialign.config import CompareConfig, TrainConfig
from unialign.data import EmbeddingStore, load_dataset
from unialign.experiments import copy_thumbnails, write_json
from unialign.generation import GenerationResult, build_conditions, generate_images, load_decoder
from unialign.train import fit

_FOLDER = "images"
_IMAGE = "image"
_QUERIES = 8
_SOURCES = (("text",), ("drawing",), ("speech",), ("text", "speech"))
# A frozen modality cannot be combined with GCCA initialization, so these spaces have random initial weights.
_FROZEN_SETTINGS: Mapping[str, Any] = {
    "head": "linear",
    "init": "random",
    "dim": 128,
    "dropout": 0.5,
    "lr": 0.004,
    "weight_decay": 0.05,
    f"frozen.{_IMAGE}": "whiten",
}
# Training from random weights takes this multiple of the epochs of the recipe.
_EPOCHS = 10
# Training settings of the entries that generate images; docs/findings/generation.md explains them and their cost.
_GENERATION_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "unialign": {
        "objective_options.preset": "frozen_anchor",
        "objective_options.uniformity_weight": 1.0,
        "objective_options.alignment_weight": 2.0,
        "objective_options.temperature": 0.07,
    },
    "infonce": {"objective_options.temperature": 0.1},
    "gram": {"objective_options.temperature": 0.1, "infonce_warmup_ratio": 0.9},
}
_RULE = (
    "The queries are test items, evenly spaced in the order of the data and not selected by hand. Their source "
    "modalities rotate. Each query is sampled once, with the same noise for all queries."
)


def add_images(config: CompareConfig, out: Path) -> None:
    store, decoder = load_dataset(config.data), load_decoder(config.data)
    folder, seed = out / _FOLDER, min(config.seeds)
    rows = store.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, _QUERIES).round().astype(int)]
    results: dict[str, GenerationResult] = {}
    for key, entry in config.entries.items():
        if key not in _GENERATION_SETTINGS:
            continue
        echo(f"images: {entry.label} with frozen {_IMAGE}, seed {seed}")
        space = fit(store, _frozen_image(entry.train, seed), out=folder / key, resume="auto", progress="none").space
        conditions = [
            condition
            for i, row in enumerate(rows)
            for condition in build_conditions(space, store, items=[f"#{row}"], modalities=_SOURCES[i % len(_SOURCES)])
        ]
        results[key] = generate_images(space, decoder, store, conditions, anchor=_IMAGE)
    _write(folder, store, config, results)


def _frozen_image(train: TrainConfig, seed: int) -> TrainConfig:
    own = _GENERATION_SETTINGS[train.objective]
    settings = {"seed": seed, "epochs": _EPOCHS * train.epochs, **_FROZEN_SETTINGS, **own}
    if has_anchor(train.objective):
        settings[ANCHOR] = _IMAGE
    return train.override(settings)


def _write(folder: Path, store: EmbeddingStore, config: CompareConfig, results: Mapping[str, GenerationResult]) -> None:
    first = next(iter(results.values()))
    cards = []
    for i, condition in enumerate(first.conditions):
        images = {}
        for key, result in results.items():
            name = f"{i}-{key}.png"
            write_enlarged(folder / name, result.images[i, 0])
            copy = result.nearest[i][0] if result.copies is None else result.copies[i][0]
            images[key] = {"file": name, "true_cosine": result.true_cosines[i], "copy": copy}
        sources = [part.removesuffix(f" of {condition.name}") for part in condition.parts]
        cards.append({"name": condition.name, "row": condition.row, "sources": sources, "images": images})
    rows = set().union(*map(compared_rows, results.values()))
    copy_thumbnails(store, folder, {row: row for row in rows}, modality=_IMAGE)
    contents = {
        "schema": 1,
        "anchor": _IMAGE,
        "rule": _RULE,
        "labels": {key: config.entries[key].label for key in results},
        "compared_by": "condition" if first.copies is None else "pixels",
        "cards": cards,
    }
    write_json(folder / "images.json", contents)
