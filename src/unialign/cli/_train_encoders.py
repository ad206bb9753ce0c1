"""Implementation of `unialign train` for runs that train encoders on items."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign.cli._anchors import with_anchor
from unialign.cli._console import echo, shown
from unialign.cli._embedded import inspected_items, list_broken
from unialign.cli._media import EMBEDDING_SETTINGS, chosen_encoder, with_defaults
from unialign.cli._quiet import progress_mode
from unialign.cli._train_output import print_header, write_results
from unialign.config import EmbedConfig, TrainConfig
from unialign.data import list_datasets
from unialign.embedding import embed
from unialign.errors import ConfigError
from unialign.experiments import ITEMS_FOLDER, STORE_FOLDER, run_items
from unialign.items import Items
from unialign.train import check_items, chosen_device, fit, process_group_of


def train_encoders(
    sources: Sequence[str],
    fingerprint: str | None,
    config: TrainConfig,
    begin: Mapping[str, Any],
    options: argparse.Namespace,
) -> int:
    """Train the encoders and the space, evaluate them, and return the exit status.

    Raises:
        DataError: the fingerprint of the features of the initial encoders differs from the required fingerprint.
    """
    processes = process_group_of("auto")
    if any(source in list_datasets() or (Path(source) / "store.json").is_file() for source in sources):
        raise ConfigError("tune trains encoders of media, but the data are features; pass a folder or table of media")
    path = options.out / ITEMS_FOLDER
    if processes.world_size == 1:
        items = _checked(sources, config, options)
    else:
        processes.broadcast_from_rank0(lambda: _save(_checked(sources, config, options), path))
        items = Items.load(path)
    config, note = with_anchor(config, items.modalities)
    given = {name: getattr(options, name) for name in EMBEDDING_SETTINGS if hasattr(options, name)}
    embedding = EmbedConfig().override(given)
    arguments: dict[str, Any] = {
        "embedding": embedding,
        "accept_licenses": options.accept_license,
        "resume": options.resume,
        "device": options.device,
        **begin,
    }
    try:
        if fingerprint is not None:
            processes.broadcast_from_rank0(lambda: _check_features(items, fingerprint, config, arguments, options.out))
        if not processes.is_rank0:
            fit(items, config, out=options.out, progress="none", **arguments)
            return 0
        print_header(str(path), items.modalities, config, note, options.out, processes=processes.world_size)
        trained = [f"{name} ({mode})" for name in items.modalities if (mode := config.tuning(name).mode) != "frozen"]
        echo(
            f"training the encoders of {', '.join(trained)}; the features of the initial encoders are in "
            f"{shown(options.out / 'store')}"
        )
        record, store = run_items(
            items, config, options.out, split=options.split, progress=progress_mode(), **arguments
        )
    except KeyboardInterrupt:
        kept = f"finished parts and checkpoints are in {shown(options.out)}; run the same command again to continue"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None
    list_broken(store)
    write_results(str(path), store, config, record, options)
    return 0


def _check_features(
    items: Items, fingerprint: str, config: TrainConfig, arguments: Mapping[str, Any], out: Path
) -> None:
    """Embed the items into the store that `fit` will use, and compare its fingerprint."""
    start: Any = arguments.get("init_from")
    encoders: dict[str, Any] = dict(config.encoders)
    for name in () if start is None else start.encoders:
        if name in items.modalities and chosen_encoder(encoders, name) is None:
            encoders[name] = start.encoder(name)
    store = embed(
        items,
        with_defaults(encoders, items.kinds),
        out / STORE_FOLDER,
        **{name: getattr(arguments["embedding"], name) for name in EMBEDDING_SETTINGS},
        accept_licenses=arguments["accept_licenses"],
        device=arguments["device"],
        progress=progress_mode(),
    )
    store.check_fingerprint(fingerprint)


def _save(items: Items, path: Path) -> None:
    """Write the table that all processes read."""
    if not path.exists():
        items.save(path)
    elif Items.load(path).fingerprint != items.fingerprint:
        raise ConfigError(f"{path.parent} holds a run on other items; choose another --out")


def _checked(sources: Sequence[str], config: TrainConfig, options: argparse.Namespace) -> Items:
    chosen_device(options.device)
    items = inspected_items(sources, config, options)
    check_items(items, with_anchor(config, items.modalities)[0])
    return items
