"""Inspect a source of media and embed it into a store in a results folder, for `unialign train`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from unialign._plain_text import count
from unialign.cli._anchors import with_anchor
from unialign.cli._console import echo, shown
from unialign.cli._items import open_items
from unialign.cli._media import EMBEDDING_SETTINGS, chosen_encoder, with_defaults
from unialign.cli._quiet import progress_mode
from unialign.cli.embed import chosen_names
from unialign.config import Split, TrainConfig
from unialign.data import EmbeddingStore
from unialign.embedding import embed
from unialign.encoders import Encoder
from unialign.errors import ConfigError, DataError
from unialign.experiments import STORE_FOLDER, check_run_dir
from unialign.inspection import inspect
from unialign.items import Items
from unialign.space import Space, described
from unialign.train import check_fit

SPLITS = get_args(Split)
BROKEN_FILE = "broken.jsonl"
_SHOWN = 5


def embedded_store(
    sources: Sequence[str],
    config: TrainConfig,
    options: argparse.Namespace,
    init_from: Space | None = None,
) -> str:
    """Return the path of the store; the same command continues after an interruption.

    Modalities of `init_from` are embedded with its encoders, unless others are given.
    """
    path = options.out / STORE_FOLDER
    table = inspected_items(sources, config, options)
    items = table
    given_encoders = chosen_names(options.encode)
    defaults = with_defaults(given_encoders, items.kinds)
    names = {name: str(chosen_encoder(defaults, name)) for name in items.modalities}
    encoders: dict[str, str | Encoder] = dict(defaults)
    for name, reference in ({} if init_from is None else init_from.encoders).items():
        if name in names and chosen_encoder(given_encoders, name) is None:
            assert init_from is not None
            encoders[name], names[name] = init_from.encoder(name), described(reference)
    chosen = [f"{name} with {encoder}" for name, encoder in names.items()]
    echo(f"embedding {', '.join(chosen)}, into {shown(path)}")
    given = {name: getattr(options, name) for name in EMBEDDING_SETTINGS if hasattr(options, name)}
    store = embed(
        table,
        encoders,
        path,
        **given,
        resume="never" if options.resume == "never" else "auto",
        accept_licenses=options.accept_license,
        device=options.device,
        progress=progress_mode(),
    )
    list_broken(store)
    return str(path)


def inspected_items(sources: Sequence[str], config: TrainConfig, options: argparse.Namespace) -> Items:
    """Open the items of the run, with groups and a split; raise errors of settings before anything is encoded."""
    # Nothing is created, so that an error leaves no empty folder.
    _check_data(check_run_dir(options.out, "run"), options.out / STORE_FOLDER)
    _check_not_trained(options)
    items = open_items(sources, options)
    if config.modalities is not None:
        items = items.select(config.modalities)
    if len(items.modalities) < 2:
        raise ConfigError(
            f"{items.name!r} has only the modality {items.modalities[0]!r}, but training needs at least two; "
            "specify the others with --rule"
        )
    found = inspect(items)
    echo(found.text())
    # Groups that were found may cross a given split, which is used as it is.
    table = items if items.has_split else found.items
    _check_split(table, options.split)
    _check_settings(table, config)
    return table


def _check_not_trained(options: argparse.Namespace) -> None:
    """Raise ConfigError if encoding the media again would replace the features on which a space was trained."""
    given = [name for name in ("retry_broken", "allow_changed") if getattr(options, name, False)]
    checkpoints = options.out / "checkpoints"
    if given and checkpoints.is_dir() and any(checkpoints.iterdir()):
        option = f"--{given[0].replace('_', '-')}"
        raise ConfigError(
            f"{options.out} holds a space that was trained on the present features, which {option} would replace; "
            "choose another --out"
        )


def list_broken(store: EmbeddingStore) -> None:
    if BROKEN_FILE not in store.assets:
        return
    records = [json.loads(line) for line in store.asset(BROKEN_FILE).decode().splitlines()]
    for record in records[:_SHOWN]:
        names = ", ".join(record["items"])
        echo(f"Broken: {record['modality']} of {names}: {record['cell']}: {record['detail']} ({record['code']})")
    if len(records) > _SHOWN and store.path is not None:
        echo(f"All {len(records):,} broken cells: {shown(store.path / 'assets' / BROKEN_FILE)}")


def _check_data(settings: Mapping[str, Any] | None, path: Path) -> None:
    """Raise ConfigError if the folder has a run on other data, before hours of encoding."""
    data = None if settings is None else settings.get("data")
    before = data.get("path") if isinstance(data, Mapping) else None
    if settings is None or (isinstance(before, str) and not Path(before).exists() and Path(before).name == path.name):
        return  # a new folder, or a folder that was moved
    if not (isinstance(before, str) and path.exists() and Path(before).samefile(path)):
        raise ConfigError(f"{path.parent} holds a run on other data ({before}); choose another --out")


def _check_settings(items: Items, config: TrainConfig) -> None:
    """Raise the errors of `fit` about settings that do not fit the modalities or the split."""
    splits = [name for code, name in enumerate(SPLITS) if (items.split == code).any() for _ in range(2)]
    ones = np.ones((len(splits), config.dim), np.float32)
    store = EmbeddingStore.from_arrays(dict.fromkeys(items.modalities, ones), name=items.name, split=splits)
    config, _ = with_anchor(config, store.modalities)
    check_fit(store, config)


def _check_split(items: Items, split: str) -> None:
    for name in dict.fromkeys(("train", split)):
        items_of = int(np.count_nonzero(items.split == SPLITS.index(name)))
        if items_of < 2:
            raise DataError(
                f"the split {name!r} of {items.name!r} has {count(items_of, 'item')}, but at least 2 are needed; give "
                f"more items, or a column `split`"
            )
