"""Run one entry with one seed: train, embed the evaluated split, and compute the metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from unialign._plain_text import count
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.evaluation import Evaluation, evaluate, sampled_places
from unialign.io import replace_file
from unialign.space import Space, check_encoders
from unialign.train import TrainConfig, fit


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        seconds: training time in seconds; None if the time is missing from the log of a finished run.
        parameters: number of trainable parameters of the space.
        warnings: records of the health monitor.
        closed_form: description of the closed form from which the run started, with its chosen settings; None for
            random weights.
        columns: provenance of the evaluated columns, if different from the provenance of the store.
    """

    seconds: float | None
    parameters: int
    warnings: list[dict[str, Any]]
    evaluation: Evaluation
    closed_form: dict[str, Any] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def run(
    store: EmbeddingStore,
    config: TrainConfig,
    folder: Path,
    *,
    split: str,
    anchor: str | None = None,
    resume: Literal["never", "auto", "required"] = "auto",
    device: str = "auto",
    progress: Literal["auto", "none"] = "none",
    init_from: Space | None = None,
    train: Sequence[str] | None = None,
) -> RunRecord:
    """Train, resume or read back the run in a folder, and evaluate it on a split of its data.

    `init_from` and `train` are arguments of `unialign.fit`.

    Raises:
        DataError: the split has fewer than two items, or the folder contains a run on other data.
        ConfigError, CheckpointError, NonFiniteError: see `unialign.fit`.
    """
    if len(rows := store.rows(split)) < 2:
        raise DataError(f"the {split!r} split of {store.name!r} has {count(len(rows), 'item')}; at least 2 are needed")
    result = fit(
        store,
        config,
        out=folder,
        resume=resume,
        device=device,
        progress=progress,
        init_from=init_from,
        train=train,
    )
    return RunRecord(
        seconds=training_seconds(result.history),
        parameters=sum(p.numel() for p in result.space.parameters() if p.requires_grad),
        warnings=[vars(warning) for warning in result.warnings],
        evaluation=evaluate_space(result.space, store, split, folder, anchor=anchor),
        closed_form=result.space.metadata.get("closed_form"),
    )


def training_seconds(history: Sequence[Mapping[str, Any]]) -> float | None:
    seconds = history[-1].get("seconds") if history else None
    return seconds if isinstance(seconds, float) else None


def evaluate_space(
    space: Space,
    store: EmbeddingStore,
    split: str,
    folder: Path,
    *,
    anchor: str | None = None,
    sample: int | None = None,
) -> Evaluation:
    """Embed a split, write the embeddings into a results folder, and evaluate them.

    With a `sample`, only the embeddings of the sampled items are written; see `unialign.evaluate`. The file also
    contains the presence masks, ids and labels of the items, so that `unialign.diagnose` and `unialign repair` read it
    correctly.
    """
    rows = evaluated_rows(store, split, sample)
    embeddings = _embed(space, store, rows)
    replace_file(folder / "embeddings.safetensors", save({**_item_values(store, rows), **embeddings}))
    if len(rows) < len(store.rows(split)):
        return evaluate(store, space, split=split, sample=len(rows), anchor=anchor)
    return evaluate_split(embeddings, store, split, anchor=anchor)


def evaluated_rows(store: EmbeddingStore, split: str, sample: int | None) -> NDArray[np.int64]:
    """Return the rows of the items of a split that `evaluate` measures with a sample of this size."""
    rows = store.rows(split)
    return rows if sample is None or sample >= len(rows) else rows[sampled_places(len(rows), sample)]


def _item_values(store: EmbeddingStore, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    masks = {f"present.{name}": store.present(name)[rows] for name in store.modalities}
    values: dict[str, Any] = {key: mask_N for key, mask_N in masks.items() if not mask_N.all()}
    if store.has_ids:
        values["ids"] = store.ids[rows]
    if (store.labels[rows] >= 0).any():
        values["labels"] = store.labels[rows]
    return {key: torch.from_numpy(value_N.copy()) for key, value_N in values.items()}


def embed_split(space: Space, store: EmbeddingStore, split: str) -> dict[str, Tensor]:
    """Return the embeddings of a split, modality -> (N, D) float32 unit rows; absent rows are 0."""
    return _embed(space, store, store.rows(split))


def _embed(space: Space, store: EmbeddingStore, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    check_encoders(space, store)
    names = [name for name in store.modalities if name in space.modalities]
    embeddings = space.encode(
        {name: store.array(name)[rows] for name in names},
        present={name: torch.from_numpy(store.present(name)[rows].copy()) for name in names},
    )
    return {name: z_ND.float().cpu().contiguous() for name, z_ND in embeddings.items()}


def evaluate_split(
    embeddings: dict[str, Tensor], store: EmbeddingStore, split: str, *, anchor: str | None = None
) -> Evaluation:
    """Call `unialign.evaluate` with the store's presence, ids and labels for the split."""
    rows = store.rows(split)
    # Restore the order of the modalities, since safetensors sorts names and k-means depends on the order.
    embeddings = {name: embeddings[name] for name in store.modalities if name in embeddings}
    labels = torch.from_numpy(store.labels[rows].copy())
    return evaluate(
        embeddings,
        present={name: torch.from_numpy(store.present(name)[rows].copy()) for name in embeddings},
        ids=torch.from_numpy(store.ids[rows].copy()),
        labels=labels if bool((labels >= 0).any()) else None,
        anchor=anchor,
    )
