"""Embed raw media with the encoders of a space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unialign._plain_text import count, join_words
from unialign.cli._console import echo, shown
from unialign.cli._quiet import progress_mode
from unialign.data import EmbeddingStore
from unialign.embedding import embed
from unialign.errors import ConfigError, DataError
from unialign.items import SPLITS, Items
from unialign.space import Space


def store_of_media(
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
    missing = [name for name in modalities or () if name not in shared]
    if missing or not shared:
        what = f"{join_words(missing)} cannot be encoded" if missing else "no modality can be encoded"
        raise ConfigError(
            f"{what}: the media have {join_words(items.modalities)}, and the space has encoders of "
            f"{join_words(space.encoders) or 'no modality'}; name the modalities as in the space"
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
