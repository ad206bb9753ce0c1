"""Encode the media of an item table with the encoders of a space."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unialign._plain_text import join_words
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.embedding import embed_with
from unialign.encoders import Encoder
from unialign.errors import ConfigError, DataError
from unialign.items import SPLITS, Items
from unialign.space import Space

__all__ = ["accepted_licenses", "encoders_for_items", "items_of_split", "store_of_items"]


@contextmanager
def store_of_items(
    items: Items, space: Space, *, split: str, embedding: EmbedConfig | None
) -> Iterator[EmbeddingStore]:
    """Embed the items of a split with the encoders of the space; yield the store, which is in a temporary folder.

    Raises:
        ConfigError, DataError: see `encoders_for_items` and `items_of_split`.
    """
    encoders = encoders_for_items(space, items)
    part = items_of_split(items.select(tuple(encoders)), split)
    with tempfile.TemporaryDirectory() as folder:
        yield embed_with(
            embedding or EmbedConfig(),
            part,
            encoders,
            Path(folder) / "store",
            accept_licenses=accepted_licenses(encoders.values()),
            progress="none",
        ).store


def encoders_for_items(space: Space, items: Items, modalities: Sequence[str] | None = None) -> dict[str, Encoder]:
    """Return the encoders of the space for the given modalities of the items; None: for all shared modalities.

    Raises:
        ConfigError: a modality has no encoder, or the space and the items share no modality.
    """
    without = [name for name in items.modalities if name in space.dims and name not in space.encoders]
    if modalities is None and without:
        raise ConfigError(
            f"the space has no encoder of {without[0]!r}, so its raw media cannot be embedded; encode the media with "
            "`embed` and pass the store"
        )
    shared = [name for name in modalities or items.modalities if name in items.modalities and name in space.encoders]
    missing = [name for name in modalities or () if name not in shared]
    if missing or not shared:
        what = f"{join_words(missing)} cannot be encoded" if missing else "no modality can be encoded"
        raise ConfigError(
            f"{what}: the media have {join_words(items.modalities)}, and the space has encoders of "
            f"{join_words(space.encoders) or 'no modality'}; rename the modalities as in the space, or encode the "
            "media with `embed` and pass the store"
        )
    return {name: space.encoder(name) for name in shared}


def items_of_split(items: Items, split: str) -> Items:
    """Return the items of a split; all items, if the table has no split.

    Raises:
        DataError: no item is in the split.
    """
    if not items.has_split:
        return items.with_split([split] * len(items))
    found = items.rows_of(items.split == SPLITS.index(split))
    if not len(found):
        raise DataError(f"{items.name!r} has no items in the split {split!r}; choose another split")
    return found


def accepted_licenses(encoders: Iterable[Encoder]) -> list[str]:
    """Return the licenses of the encoders, which were accepted when the space was trained."""
    return [str(encoder.reference.get("license", "unknown")) for encoder in encoders]
