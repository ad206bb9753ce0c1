"""Resolve the settings of a training run, and describe the run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.config import TrainConfig
from unialign.data import EmbeddingStore, combinations, data_license, encoder_fingerprint
from unialign.errors import ConfigError, DataError
from unialign.losses import FusedTarget, Matryoshka, Objective, create
from unialign.space import Space, check_frozen, folder_of
from unialign.train._batches import Batches
from unialign.train._connectivity import check_connected, check_pairs
from unialign.train._init_from import check_frozen_encoders, weights_digest
from unialign.train._mixture_batches import MixtureBatches
from unialign.train._run_dir import ENCODERS, TABLE, RunDir


def batches_of(store: EmbeddingStore, rows: NDArray[np.int64], config: TrainConfig) -> Batches:
    """`rows` are the training rows of the store; the batches have positions among them."""
    common = len(rows), config.batch_size, config.gradient_accumulation_steps, config.epochs, config.seed
    sampling = store.sampling
    if sampling is None:
        return Batches(*common)
    batches = MixtureBatches(*common, sampling.sizes(rows), sampling.weights, sampling.mode, sampling.epoch_steps)
    batches.check()
    return batches


def check_alignment(store: EmbeddingStore, rows: NDArray[np.int64], config: TrainConfig) -> None:
    """Raise ConfigError if the training rows cannot align all modalities."""
    modalities = config.modalities or ()
    check_connected(store, modalities, rows)
    if config.epochs:
        check_pairs(
            store,
            modalities,
            rows,
            lambda: make_objective(config),
            name=config.objective,
            dim=config.dim,
            anchor=config.objective_options.get("anchor"),
        )


def resolve_config(store: EmbeddingStore, config: TrainConfig) -> TrainConfig:
    """Raise the errors of `fit`."""
    if not isinstance(store, EmbeddingStore):
        raise DataError(
            f"data must be an EmbeddingStore, an Items table or a Mixture, got {type(store).__name__}; open features "
            "with `unialign.data.load_dataset`, and media with `unialign.data.Items.open`"
        )
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"config must be a TrainConfig, got {config!r}; convert a dict with `TrainConfig.from_dict`")
    if config.modalities is None:
        if len(store.modalities) < 2:
            raise ConfigError(
                f"the data {store.name!r} has only the modality {store.modalities[0]!r}, but training needs at least "
                "two modalities; add a file with the same items"
            )
        config = config.replace(modalities=store.modalities)
    modalities = config.modalities or ()
    check_frozen(config.frozen, {name: store.dim(name) for name in modalities}, config.dim)
    if len(config.frozen) == len(modalities):
        raise ConfigError(
            f"frozen contains all modalities ({', '.join(modalities)}), so nothing would be trained; remove a modality"
        )
    return config


def make_objective(config: TrainConfig) -> Objective:
    """Include the fused term and the prefixes of the settings."""
    options = dict(config.objective_options)
    if config.objective == "unialign" and not config.tune:
        # The default of the loss is for encoders with random weights, which may map all items into a narrow cone. Here
        # the heads start from standardized features.
        options.setdefault("preset", "balanced")
    objective = create(config.objective, **options)
    if config.fused_weight > 0:
        objective = FusedTarget(objective, config.fused_weight, subsets=config.fused_subsets)
    if config.matryoshka_dims is not None:
        objective = Matryoshka(objective, tuple(dict.fromkeys((*config.matryoshka_dims, config.dim))))
    return objective


def term_names(objective: Objective, modalities: tuple[str, ...], dim: int) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = {name: torch.randn(4, dim, generator=generator) for name in modalities}
        _, terms = objective.compute(rows, group=None, similarity=rows if objective.needs_similarity() else None)
    return list(terms)


def run_facts(
    store: EmbeddingStore, config: TrainConfig, items: int, init_from: Space | None, train: Sequence[str] | None = None
) -> dict[str, Any]:
    data: dict[str, Any] = {"name": store.name, "fingerprint": store.fingerprint, "training_items": items}
    if store.sampling is not None:
        data["mixture"] = store.sampling.to_dict()
    if config.frozen:
        # Record the encoders, so that a decoder of these embeddings can check that it was trained for the same encoder.
        data["columns"] = {name: encoder_fingerprint(store, name) for name in config.frozen}
    facts: dict[str, Any] = {"training": config.to_dict(), "data": data}
    if init_from is not None:
        check_frozen_encoders(init_from, data.get("columns", {}))
        facts["init_from"] = {"weights": weights_digest(init_from)}
        if train is not None:
            facts["init_from"]["train"] = list(train)
    return facts


def space_metadata(
    store: EmbeddingStore, facts: Mapping[str, Any], encoders: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the facts of a run and, if the space encodes raw media, the numbers of training items."""
    if not encoders:
        return dict(facts)
    counts = combinations(store, facts["training"]["modalities"], "train")
    return {**facts, "data": {**facts["data"], "license": data_license(store), "combinations": counts}}


def run_dir(
    out: str | os.PathLike[str],
    store: EmbeddingStore,
    config: TrainConfig,
    facts: dict[str, Any],
    init_from: Space | None = None,
) -> RunDir:
    path: dict[str, Any] = {} if store.path is None else {"path": str(store.path)}
    start: dict[str, Any] = {}
    if init_from is not None:
        folder = folder_of(init_from)
        start = {"init_from": facts["init_from"] | ({} if folder is None else {"path": os.path.abspath(folder)})}
    table = {"items": os.path.abspath(Path(out) / TABLE)} if ENCODERS in facts else {}
    if store.sampling is not None and all(store.sampling.paths.values()):
        path = {"sources": dict(store.sampling.paths)}
    settings = {"data": facts["data"] | path | table, "train": facts["training"], **start}
    return RunDir(out, config, facts=facts, settings=settings)
