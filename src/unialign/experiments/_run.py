"""One run: train one entry with one seed, embed the evaluated split, measure it. A finished run is kept."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.evaluation import Evaluation, evaluate
from unialign.experiments._results import write_json
from unialign.space import Space
from unialign.train import TrainConfig, fit

__all__ = ["EMBEDDINGS_FILE", "RunRecord", "embed_split", "evaluate_split", "run"]

EMBEDDINGS_FILE = "embeddings.safetensors"
_DONE_FILE = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        seconds: of training.
        parameters: trainable parameters of the space.
        warnings: what the health monitor said.
    """

    seconds: float
    parameters: int
    warnings: list[dict[str, Any]]
    evaluation: Evaluation


def run(
    store: EmbeddingStore,
    config: TrainConfig,
    folder: Path,
    *,
    split: str,
    anchor: str | None = None,
    resume: Literal["never", "auto", "must"] = "auto",
    device: str = "auto",
    progress: Literal["auto", "none"] = "none",
) -> RunRecord:
    """Train (or continue, or just read back) the run of a folder and evaluate its split.

    Raises:
        DataError: the split has fewer than two items, or the folder holds a run on other data.
        ConfigError, CheckpointError, NonFiniteError: see `unialign.fit`.
    """
    if len(store.rows(split)) < 2:
        raise DataError(
            f"the {split!r} split of {store.name!r} has {len(store.rows(split))} items; at least 2 are needed"
        )
    record = _read_done(folder, store, split)
    if record is None:
        started = time.perf_counter()
        result = fit(store, config, out=folder, resume=resume, device=device, progress=progress)
        record = {
            "schema": 1,
            "fingerprint": store.fingerprint,
            "split": split,
            "seconds": time.perf_counter() - started,
            "parameters": sum(p.numel() for p in result.space.parameters() if p.requires_grad),
            "warnings": [warning if isinstance(warning, dict) else vars(warning) for warning in result.warnings],
        }
        save_file(embed_split(result.space, store, split), folder / EMBEDDINGS_FILE)
        write_json(folder / _DONE_FILE, record)
    evaluation = evaluate_split(load_file(folder / EMBEDDINGS_FILE), store, split, anchor=anchor)
    return RunRecord(record["seconds"], record["parameters"], record["warnings"], evaluation)


def embed_split(space: Space, store: EmbeddingStore, split: str) -> dict[str, Tensor]:
    """Unit rows of a split in the space, modality -> (N, D) float32; absent rows are 0."""
    rows = store.rows(split)
    names = [name for name in store.modalities if name in space.modalities]
    embeddings = space.encode(
        {name: store.array(name)[rows] for name in names},
        present={name: torch.from_numpy(store.present(name)[rows].copy()) for name in names},
    )
    return {name: z_ND.float().cpu().contiguous() for name, z_ND in embeddings.items()}


def evaluate_split(
    embeddings: dict[str, Tensor], store: EmbeddingStore, split: str, *, anchor: str | None = None
) -> Evaluation:
    """`unialign.evaluate` with the presence, ids and labels that the store has for the split."""
    rows = store.rows(split)
    # Files sort their names; the order of the modalities decides the start of k-means.
    embeddings = {name: embeddings[name] for name in store.modalities if name in embeddings}
    labels = torch.from_numpy(store.labels[rows].copy())
    return evaluate(
        embeddings,
        present={name: torch.from_numpy(store.present(name)[rows].copy()) for name in embeddings},
        ids=torch.from_numpy(store.ids[rows].copy()),
        labels=labels if bool((labels >= 0).any()) else None,
        anchor=anchor,
    )


def _read_done(folder: Path, store: EmbeddingStore, split: str) -> dict[str, Any] | None:
    path = folder / _DONE_FILE
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        done_with = (record["fingerprint"], record["split"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path} ({error}); delete the folder to train this run again") from error
    if done_with != (store.fingerprint, split):
        raise DataError(
            f"{folder} holds a finished run on data {done_with[0][:12]}..., split {done_with[1]!r}; this is "
            f"{store.fingerprint[:12]}..., {split!r}. Choose another --out, or delete that folder"
        )
    return record
