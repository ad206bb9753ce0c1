"""Embed raw media with the encoders of a space, into a store in a results folder."""

import argparse
from collections.abc import Sequence

from unialign._plain_text import join_words
from unialign.cli._console import echo, shown
from unialign.cli._items import open_items
from unialign.cli._quiet import progress_mode
from unialign.data import EmbeddingStore
from unialign.embedding import embed
from unialign.errors import ConfigError
from unialign.experiments import STORE_FOLDER
from unialign.space import Space


def store_of_media(
    space: Space,
    sources: Sequence[str],
    options: argparse.Namespace,
    *,
    settings: Sequence[str],
    modalities: Sequence[str] | None = None,
) -> EmbeddingStore:
    """Return the store of the features of the modalities that the space and the media share; the same call again
    continues, or opens the finished store.

    Args:
        settings: options that are passed on to `embed`.
        modalities: modalities to encode. None: all shared modalities.
    """
    items = open_items(sources, options)
    shared = [name for name in modalities or items.modalities if name in items.modalities and name in space.encoders]
    missing = [name for name in modalities or () if name not in shared]
    if missing or not shared:
        what = f"{join_words(missing)} cannot be encoded" if missing else "no modality can be encoded"
        raise ConfigError(
            f"{what}: the media have {join_words(items.modalities)}, and the space has encoders of "
            f"{join_words(space.encoders) or 'no modality'}; name the modalities of the space with --rule"
        )
    path = options.out / STORE_FOLDER
    encoders = {name: space.encoder(name) for name in shared}
    listed = [f"{name} with {encoder.reference['name']}" for name, encoder in encoders.items()]
    echo(f"embedding {', '.join(listed)}, into {shown(path)}")
    given = {name: getattr(options, name) for name in settings if hasattr(options, name)}
    return embed(items.select(shared), encoders, path, **given, device=options.device, progress=progress_mode())
