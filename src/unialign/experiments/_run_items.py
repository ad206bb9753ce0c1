"""Train encoders and a space on items, and evaluate them on a split."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from unialign._plain_text import count
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.embedding import embed_with, finished_features
from unialign.errors import DataError
from unialign.experiments._results_folder import EVALUATED_FOLDER, STORE_FOLDER
from unialign.experiments._run import RunRecord, evaluate_space, training_seconds
from unialign.items import SPLITS, Items
from unialign.space import Space
from unialign.train import TrainConfig, fit


def run_items(
    items: Items,
    config: TrainConfig,
    folder: Path,
    *,
    split: Literal["train", "val", "test"],
    embedding: EmbedConfig,
    accept_licenses: Collection[str] = (),
    resume: Literal["never", "auto", "required"] = "auto",
    device: str = "auto",
    progress: Literal["auto", "none"] = "none",
    init_from: Space | None = None,
    train: Sequence[str] | None = None,
) -> tuple[RunRecord, EmbeddingStore]:
    """Train, resume or read back the run in a folder, embed a split with the trained encoders, and evaluate it.

    Returns:
        The record, and the store with the features of all items by the initial encoders.

    Raises:
        DataError: the split has fewer than two items, or the folder contains a run on other data.
        ConfigError, CheckpointError, NonFiniteError: see `unialign.fit`.
    """
    # Without a split, all items are training items.
    split_N = items.split.clip(min=0)
    size = int((split_N == SPLITS.index(split)).sum())
    if size < 2:
        raise DataError(f"the {split!r} split of {items.name!r} has {count(size, 'item')}; at least 2 are needed")
    result = fit(
        items,
        config,
        out=folder,
        embedding=embedding,
        accept_licenses=accept_licenses,
        resume=resume,
        device=device,
        progress=progress,
        init_from=init_from,
        train=train,
    )
    store = EmbeddingStore.open(folder / STORE_FOLDER)
    part = items.select(store.modalities).rows_of(store.rows(split))
    encoders = {name: result.space.encoder(name) for name in part.modalities}
    target = folder / EVALUATED_FOLDER
    evaluated = finished_features(target, part, encoders, embedding)
    if evaluated is None:
        # Continue an interrupted evaluation, but replace the store of a different split.
        overwrite: Literal["never", "replace"] = "replace" if target.exists() else "never"
        evaluated = embed_with(
            embedding.replace(allow_changed=False, retry_broken=False),
            part,
            encoders,
            target,
            accept_licenses=accept_licenses,
            overwrite=overwrite,
            progress=progress,
        ).store
    tuned = [name for name in part.modalities if config.tuning(name).mode != "frozen"]
    modules = {id(module): module for name in tuned if (module := encoders[name].module) is not None}
    trained = [result.space, *modules.values()]
    columns = evaluated.provenance["columns"]
    record = RunRecord(
        seconds=training_seconds(result.history),
        parameters=sum(p.numel() for module in trained for p in module.parameters() if p.requires_grad),
        warnings=[vars(warning) for warning in result.warnings],
        evaluation=evaluate_space(result.space, evaluated, split, folder),
        closed_form=result.space.metadata.get("closed_form"),
        columns={name: columns[name] for name in tuned},
    )
    return record, store
