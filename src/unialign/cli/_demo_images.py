"""The demo's images: every objective trained again around the frozen image, and what a decoder makes of the same
held-out queries in each of the spaces.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unialign.cli._anchors import ANCHOR, has_anchor
from unialign.cli._console import echo
from unialign.cli._image_files import compared_rows, write_enlarged, write_thumbnails
from unialign.config import CompareConfig, TrainConfig
from unialign.data import EmbeddingStore, load_dataset
from unialign.experiments import write_json
from unialign.generation import GenerationResult, build_conditions, generate_images, load_decoder
from unialign.train import fit

__all__ = ["add_images"]

FOLDER = "images"
_IMAGE = "image"
_QUERIES = 8
_SOURCES = (("text",), ("drawing",), ("speech",), ("text", "speech"))
# What an objective changes for images: docs/findings/generation.md says why, and what it costs.
_FOR_PICTURES: Mapping[str, Mapping[str, Any]] = {
    "unialign": {"objective_options.preset": "frozen_anchor", "objective_options.uniformity_weight": 0.3}
}
_RULE = (
    "The queries are evenly spaced over the test items in the order of the data and take the sources in turn; nobody "
    "picked them. One sample each, with the same noise."
)


def add_images(config: CompareConfig, out: Path) -> None:
    """Train each entry with the image frozen, decode the queries, and write `images/` into the folder of a demo."""
    store, decoder = load_dataset(config.data), load_decoder(config.data)
    folder, seed = out / FOLDER, min(config.seeds)
    rows = store.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, _QUERIES).round().astype(int)]
    made: dict[str, GenerationResult] = {}
    for key, entry in config.entries.items():
        echo(f"images: {entry.label} around the frozen {_IMAGE}, seed {seed}")
        train = _around_the_image(entry.train, seed)
        space = fit(store, train, out=folder / key, resume="auto", progress="none").space
        conditions = [
            condition
            for i, row in enumerate(rows)
            for condition in build_conditions(space, store, items=[f"#{row}"], modalities=_SOURCES[i % len(_SOURCES)])
        ]
        made[key] = generate_images(space, decoder, store, conditions, anchor=_IMAGE)
    _write(folder, store, config, made)


def _around_the_image(train: TrainConfig, seed: int) -> TrainConfig:
    settings: dict[str, Any] = {"seed": seed, f"frozen.{_IMAGE}": "whiten", **_FOR_PICTURES.get(train.objective, {})}
    if has_anchor(train.objective):
        settings[ANCHOR] = _IMAGE
    return train.override(settings)


def _write(folder: Path, store: EmbeddingStore, config: CompareConfig, made: Mapping[str, GenerationResult]) -> None:
    first = next(iter(made.values()))
    cards = []
    for i, condition in enumerate(first.conditions):
        shown = {}
        for key, of_one in made.items():
            name = f"{i}-{key}.png"
            write_enlarged(folder / name, of_one.images[i, 0])
            twin = of_one.nearest[i][0] if of_one.copies is None else of_one.copies[i][0]
            shown[key] = {"file": name, "true_cosine": of_one.true_cosines[i], "twin": twin}
        sources = [part.removesuffix(f" of {condition.name}") for part in condition.parts]
        cards.append({"name": condition.name, "row": condition.row, "sources": sources, "shown": shown})
    write_thumbnails(folder, store, _IMAGE, set().union(*map(compared_rows, made.values())))
    contents = {
        "schema": 1,
        "anchor": _IMAGE,
        "rule": _RULE,
        "labels": {key: config.entries[key].label for key in made},
        "twins": "condition" if first.copies is None else "pixels",
        "cards": cards,
    }
    write_json(folder / "images.json", contents)
