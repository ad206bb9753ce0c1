"""Media as the data of `unialign train`."""

import argparse
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from unialign.cli._items import has_item_options

if TYPE_CHECKING:
    from unialign.media import Kind

# Settings of embedding that `unialign train` has as options.
EMBEDDING_SETTINGS = ("workers", "max_broken", "retry_broken", "allow_changed")


def is_media(options: argparse.Namespace) -> bool:
    """Return whether the data of `unialign train` are media to embed, and not embeddings."""
    # Unlike pathlib, os.path accepts names that no file can have.
    tables = any(os.path.isfile(os.path.join(source, "items.json")) for source in options.data)
    return bool(options.data and (has_item_options(options) or options.encode or options.tuned or tables))


def with_defaults(encoders: Mapping[str, str], kinds: "Mapping[str, Kind]") -> dict[str, str]:
    """Add the default encoder of each modality that no name or pattern matches."""
    from unialign.encoders import default

    missing = {name: kind for name, kind in kinds.items() if chosen_encoder(encoders, name) is None}
    return dict(encoders) | {name: default(kind) for name, kind in missing.items()}


def chosen_encoder(encoders: Mapping[str, str], modality: str) -> str | None:
    """Return the encoder that is given for a modality by name or by a pattern, or None."""
    matching = (encoder for key, encoder in encoders.items() if fnmatchcase(modality, key))
    return encoders.get(modality) or next(matching, None)
