"""Open the data of a command that measures a space; media are embedded with the encoders of the space."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from unialign._plain_text import count
from unialign.cli._console import echo, shown
from unialign.cli._items import open_items
from unialign.cli._media import EMBEDDING_SETTINGS, is_media
from unialign.cli._quiet import progress_mode
from unialign.config import EvaluateConfig, GramConfig, OmniConfig, ProbeConfig
from unialign.data import EmbeddingStore
from unialign.embedding import embed
from unialign.errors import DataError
from unialign.evaluation import accepted_licenses, encoders_for_items, items_of_split
from unialign.experiments import DATA_FOLDER, STORE_FOLDER, check_run_dir, open_run_dir, open_store, prepare_data
from unialign.items import Items
from unialign.space import Space

Settings = TypeVar("Settings", EvaluateConfig, GramConfig, OmniConfig, ProbeConfig)


def store_for_space(
    space: Space,
    config: Settings,
    sources: Sequence[str],
    options: argparse.Namespace,
    kind: Literal["evaluation", "probe"],
    *,
    modalities: Sequence[str] | None = None,
    split: str | None = None,
    **settings: Any,
) -> tuple[EmbeddingStore, Settings]:
    """Return a store of features, and the settings with its path and fingerprint.

    Media are embedded into `store/` of the results folder, files of features are copied into `data/`, and data sets and
    stores are used in place. The same command continues an embedding, or opens the finished store.

    Args:
        kind: kind of the results folder, `options.out`.
        modalities: modalities of media to embed. None: those that the space and the media share.
        split: split of media to embed. None: all items.
        settings: options of `embed`, which options of the command of the same name replace.

    Raises:
        ConfigError: the space cannot encode the media, or the folder has other results.
        DataError: the data cannot be read, or their fingerprint differs from `config.fingerprint`.
    """
    out: Path = options.out
    if is_media(sources, options):
        open_run_dir(out, kind)
        given = {name: getattr(options, name) for name in EMBEDDING_SETTINGS if hasattr(options, name)}
        items = open_items(sources, options)
        store = _store_of_media(
            space, items, out / STORE_FOLDER, modalities=modalities, split=split, **settings | given
        )
        if config.fingerprint is not None:
            store.check_fingerprint(config.fingerprint)
        data = str(store.path)
    else:
        try:
            data = prepare_data(sources, out, kind, id=options.id)
        except DataError as error:
            if not space.encoders or (out / DATA_FOLDER).exists():
                raise
            raise DataError(
                f"{error}. If the data are media, add --rule, such as --rule image=.png, to encode them with the "
                "encoders of the space"
            ) from None
        store = open_store(data, None, config.fingerprint)
    return store, config.replace(data=data, fingerprint=store.fingerprint)


def check_evaluation(out: Path, config: GramConfig | OmniConfig) -> None:
    """Raise ConfigError if the folder has an evaluation with other settings, before anything is computed."""
    if check_run_dir(out, "evaluation") is not None:
        open_run_dir(out, "evaluation", config.to_dict())


def _store_of_media(
    space: Space,
    items: Items,
    path: Path,
    *,
    modalities: Sequence[str] | None = None,
    split: str | None = None,
    **settings: Any,
) -> EmbeddingStore:
    """Return the features of the modalities that the space and the items share. Repeating the call continues an
    interrupted embedding, or opens the finished store.

    Args:
        modalities: modalities to encode. None: all shared modalities.
        split: encode only the items of this split, or all items if the table has no split. None: encode all items.
        settings: options of `embed`.
    """
    for note in items.notes:
        echo(note)
    encoders = encoders_for_items(space, items, modalities)
    items = items.select(tuple(encoders))
    items = items if split is None else items_of_split(items, split)
    listed = [f"{name} with {encoder.reference['name']}" for name, encoder in encoders.items()]
    echo(f"embedding {count(len(items), 'item')}: {', '.join(listed)}, into {shown(path)}")
    licenses = accepted_licenses(encoders.values())
    return embed(items, encoders, path, accept_licenses=licenses, progress=progress_mode(), **settings)
