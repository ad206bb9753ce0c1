"""Implementation of `unialign evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from unialign._plain_text import count
from unialign.cli._console import echo, shown
from unialign.cli._single_run import finish
from unialign.config import CompareConfig, ComparisonEntry, EvaluateConfig, TrainConfig
from unialign.errors import ConfigError, DataError
from unialign.experiments import (
    EMBEDDINGS_FILE,
    RunRecord,
    describe_differences,
    embed_split,
    evaluate_split,
    open_run_dir,
    open_store,
    prepare_data,
    save_embeddings,
)
from unialign.io import write_yaml
from unialign.space import Space


def evaluate(config: EvaluateConfig, sources: Sequence[str], out: Path) -> int:
    """Evaluate a space on data, and write results, report and a `config.yaml` that repeats the evaluation."""
    space = Space.from_pretrained(config.space)
    data = prepare_data(sources, out, "evaluation")
    store = open_store(data, None, config.fingerprint)
    shared = tuple(name for name in space.modalities if name in store.columns)
    if len(shared) < 2:
        raise DataError(
            f"the space has {', '.join(space.modalities)}, {data} has {', '.join(store.columns)}: at least two "
            "modalities must be in both"
        )
    store = store.select(shared)
    config = config.replace(data=data, fingerprint=store.fingerprint)
    items = len(store.rows(config.split))
    if items < 2:
        raise DataError(f"the {config.split!r} split of {data} has {count(items, 'item')}; at least 2 are needed")
    found = open_run_dir(out, "evaluation")
    if found not in (None, config.to_dict()):
        raise ConfigError(f"{out} holds another evaluation: {describe_differences(found or {}, config.to_dict())}")
    write_yaml(out / "config.yaml", config.to_dict())
    if data == str(out / "data") and items == store.items:
        echo(f"all {items:,} items are evaluated; an array `split` in the files would select the held-out ones")
    echo(f"{data}, {config.split} split, {items:,} of {store.items:,} items: {', '.join(shared)}, into {shown(out)}")
    embeddings = embed_split(space, store, config.split)
    record = RunRecord(
        seconds=0.0,
        parameters=sum(p.numel() for p in space.parameters()),
        warnings=[],
        evaluation=evaluate_split(embeddings, store, config.split, anchor=config.anchor),
    )
    comparison = CompareConfig(
        data=data,
        entries={"space": ComparisonEntry(label=Path(config.space).name, train=TrainConfig(modalities=shared))},
        seeds=(0,),
        split=config.split,
        anchor=config.anchor,
        resamples=config.resamples,
        selection="an existing space; nothing was trained",
    )
    save_embeddings(out / EMBEDDINGS_FILE, embeddings)
    trained = space.metadata.get("training", {})
    finish(out, comparison, store, record, command="evaluate", settings=trained if isinstance(trained, dict) else {})
    return 0
