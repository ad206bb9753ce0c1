"""Options that choose the encoders of a source of media."""

import argparse
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.cli._items import has_item_options
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.media import Kind

# Settings of embedding that `unialign train` has as options.
EMBEDDING_SETTINGS = ("workers", "max_broken", "retry_broken", "allow_changed")


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("encoders")
    group.add_argument(
        "--encode",
        action="append",
        default=[],
        metavar="MODALITY=ENCODER",
        help="encoder of a modality or of a pattern such as 'speech_*', for example image=package:efficientnet-lite0 "
        "(default: the best installed encoder of the kind of media that needs no download)",
    )
    group.add_argument(
        "--accept-licence",
        nargs="+",
        action="extend",
        default=[],
        metavar="LICENCE",
        help="licences of weights with restrictions that you accept, such as CC-BY-NC-4.0",
    )


def is_media(options: argparse.Namespace) -> bool:
    """Return whether the data of `unialign train` are media to embed, and not embeddings."""
    tables = any((Path(source) / "items.json").is_file() for source in options.data if "\0" not in source)
    return bool(options.data and (has_item_options(options) or options.encode or tables))


def given_encoders(options: argparse.Namespace) -> dict[str, str]:
    """Return a mapping of modality or pattern to encoder."""
    found: dict[str, str] = {}
    for entry in options.encode:
        name, sign, encoder = entry.partition("=")
        if not (name and sign and encoder):
            raise ConfigError(f"--encode must have the form MODALITY=ENCODER, got {entry!r}")
        if name in found:
            raise ConfigError(f"--encode gives {name!r} two encoders; give one")
        found[name] = encoder
    return found


def with_defaults(encoders: Mapping[str, str], kinds: "Mapping[str, Kind]") -> dict[str, str]:
    """Add the default encoder of each modality that no name or pattern matches."""
    from unialign.encoders import default

    missing = {name: kind for name, kind in kinds.items() if not any(fnmatchcase(name, key) for key in encoders)}
    return dict(encoders) | {name: default(kind) for name, kind in missing.items()}
