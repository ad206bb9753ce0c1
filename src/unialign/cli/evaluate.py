"""`unialign evaluate`: measure a trained space."""

from argparse import Namespace

from safetensors.torch import save_file

from unialign.cli._console import say, shown
from unialign.cli._one_run import finish
from unialign.errors import ConfigError, DataError
from unialign.experiments import CompareConfig, Entry, RunRecord, embed_split, evaluate_split, open_store, write_yaml
from unialign.space import Space
from unialign.train import TrainConfig

__all__ = ["run"]


def run(options: Namespace) -> int:
    space = Space.from_pretrained(options.space)
    store = open_store(options.data, None, None)
    shared = tuple(name for name in space.modalities if name in store.columns)
    if len(shared) < 2:
        raise DataError(
            f"the space knows {', '.join(space.modalities)}, {options.data} has {', '.join(store.columns)}: "
            "at least two modalities must be in both"
        )
    store = store.select(shared)
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "results.json").exists():
        raise ConfigError(f"{options.out} is not empty and holds no results; choose another --out")
    say(f"{options.data}, {options.split} split: {', '.join(shared)}, into {shown(options.out)}")
    embeddings = embed_split(space, store, options.split)
    evaluation = evaluate_split(embeddings, store, options.split, anchor=options.anchor)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(embeddings, options.out / "embeddings.safetensors")
    write_yaml(
        options.out / "config.yaml",
        {
            "command": "evaluate",
            "space": str(options.space),
            "data": options.data,
            "split": options.split,
            "anchor": options.anchor,
        },
    )
    config = CompareConfig(
        data=options.data,
        entries={"space": Entry(label="space", train=TrainConfig(modalities=shared))},
        seeds=(0,),
        split=options.split,
        anchor=options.anchor,
        **({} if options.resamples is None else {"resamples": options.resamples}),
        selection="an existing space, nothing was trained",
    )
    parameters = sum(p.numel() for p in space.parameters())
    finish(
        options.out, config, store, RunRecord(seconds=0.0, parameters=parameters, warnings=[], evaluation=evaluation)
    )
    return 0
