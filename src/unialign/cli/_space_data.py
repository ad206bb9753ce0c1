"""Open the data of a command that measures a space; media are embedded with the encoders of the space."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from unialign._plain_text import count, join_words
from unialign.cli._console import echo, shown
from unialign.cli._items import open_items
from unialign.cli._media import EMBEDDING_SETTINGS, is_media
from unialign.cli._quiet import progress_mode
from unialign.config import EvaluateConfig, GramConfig, OmniConfig, ProbeConfig
from unialign.data import EmbeddingStore
from unialign.embedding import embed
from unialign.errors import ConfigError, DataError
from unialign.experiments import STORE_FOLDER, open_run_dir, open_store, prepare_data
from unialign.items import SPLITS, Items
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
        DataError: the data cannot be read, or their fingerprint is not that of `config`.
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
        data = prepare_data(sources, out, kind, id=options.id)
        store = open_store(data, None, config.fingerprint)
    return store, config.replace(data=data, fingerprint=store.fingerprint)


def _store_of_media(
    space: Space,
    items: Items,
    path: Path,
    *,
    modalities: Sequence[str] | None = None,
    split: str | None = None,
    **settings: Any,
) -> EmbeddingStore:
    """Return the features of the modalities that the space and the items share; the same call again continues, or opens
    the finished store.

    Args:
        modalities: modalities to encode. None: all shared modalities.
        split: encode only the items of this split; items without a split are in this split. None: encode all items.
        settings: options of `embed`.
    """
    for note in items.notes:
        echo(note)
    shared = [name for name in modalities or items.modalities if name in items.modalities and name in space.encoders]
    if without := [
        name for name in items.modalities if modalities is None and name in set(space.dims) - set(space.encoders)
    ]:
        raise ConfigError(
            f"the space has no encoder of {without[0]!r}, so its raw media cannot be embedded; encode the media with "
            "`unialign embed` and pass the store"
        )
    missing = [name for name in modalities or () if name not in shared]
    if missing or not shared:
        what = f"{join_words(missing)} cannot be encoded" if missing else "no modality can be encoded"
        raise ConfigError(
            f"{what}: the media have {join_words(items.modalities)}, and the space has encoders of "
            f"{join_words(space.encoders) or 'no modality'}; name the modalities as in the space, or encode the media "
            "with `unialign embed` and pass the store"
        )
    items = items.select(shared)
    if split is not None:
        items = items.rows_of(items.split == SPLITS.index(split)) if items.has_split else items
        items = items if items.has_split else items.with_split([split] * len(items))
        if not len(items):
            raise DataError(f"{items.name!r} has no items in the split {split!r}; choose another --split")
    encoders = {name: space.encoder(name) for name in shared}
    listed = [f"{name} with {encoder.reference['name']}" for name, encoder in encoders.items()]
    echo(f"embedding {count(len(items), 'item')}: {', '.join(listed)}, into {shown(path)}")
    # The licenses were accepted when the space was trained.
    licenses = [str(encoder.reference.get("license", "unknown")) for encoder in encoders.values()]
    return embed(items, encoders, path, accept_licenses=licenses, progress=progress_mode(), **settings)
