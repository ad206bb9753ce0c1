"""Media as the data of a command."""

import argparse
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.cli._items import has_item_options

if TYPE_CHECKING:
    from unialign.media import Kind

# Settings of embedding that `unialign train` has as options.
EMBEDDING_SETTINGS = ("workers", "max_broken", "retry_broken", "allow_changed")


def is_media(sources: Sequence[str], options: argparse.Namespace) -> bool:
    """Return whether the data of a command are media rather than embeddings, according to the options or the files."""
    given = [getattr(options, "encode", None), getattr(options, "tuned", None)]
    named = has_item_options(options) or any(given)
    return bool(sources) and (named or any(map(_is_item_source, sources)))


def _is_item_source(source: str) -> bool:
    # Unlike pathlib, os.path accepts names that no file can have.
    if not os.path.exists(source):
        return False

    from unialign.readers import is_item_source

    return is_item_source([Path(source)])


def with_defaults(encoders: Mapping[str, str], kinds: "Mapping[str, Kind]") -> dict[str, str]:
    """Add the default encoder of each modality that no name or pattern matches."""
    from unialign.encoders import default

    missing = {name: kind for name, kind in kinds.items() if chosen_encoder(encoders, name) is None}
    return dict(encoders) | {name: default(kind) for name, kind in missing.items()}


def chosen_encoder(encoders: Mapping[str, str], modality: str) -> str | None:
    """Return the encoder specified for a modality by name or pattern, or None."""
    matching = (encoder for key, encoder in encoders.items() if fnmatchcase(modality, key))
    return encoders.get(modality) or next(matching, None)
