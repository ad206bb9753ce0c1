"""`unialign embed`: encode images, text, audio, video and vectors into a store of features."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unialign.cli._command import Command, add_resume
from unialign.cli._items import add_item_source
from unialign.cli._settings import add_settings, given_settings
from unialign.config import EmbedConfig
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign embed tables/stamps --encode image=package:efficientnet-lite0 --encode text=package:minilm-l6
  unialign embed stamps/ --rule image=.png --rule "speech_fr=_desc_fr.ogg" --encode "speech_*=package:whisper-tiny"
  unialign embed 'shards/{000..099}.tar' --encode image=timm:vit_base_patch16_224 --device cuda --workers 8
  unialign embed tables/stamps --engine ray --ray-address auto        on the machines of a Ray cluster

Each modality is encoded into a column of the store. Without --encode, the best installed encoder that needs no download
is used. Repeating the command continues an interrupted run. Broken cells are absent in the store, and are listed in
assets/broken.jsonl of the store. `unialign train STORE` trains a space."""


def run(options: argparse.Namespace) -> int:
    """Encode the items, write the store, and return the exit status."""
    if not options.source:
        raise ConfigError("no source is given; pass an item table or a folder, as in `unialign embed tables/stamps`")
    config = EmbedConfig().override(given_settings(options, EmbedConfig))
    choices = chosen_names(options.encode)

    from unialign.cli._embed import embed_source

    return embed_source(config, choices, options)


def chosen_names(entries: Sequence[str]) -> dict[str, str]:
    """Return modality or pattern -> name of its encoder."""
    found: dict[str, str] = {}
    for entry in entries:
        modality, sign, name = entry.partition("=")
        if not (modality and sign and name):
            raise ConfigError(
                f"--encode must have the form MODALITY=ENCODER, such as image=builtin:color, got {entry!r}"
            )
        if modality in found:
            raise ConfigError(f"--encode gives {modality!r} two encoders; give one")
        found[modality] = name
    return found


def add_encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encode",
        action="append",
        default=[],
        metavar="MODALITY=ENCODER",
        help="encoder of a modality or of a pattern such as 'speech_*', repeatable (default: the best installed one "
        "that needs no download)",
    )
    parser.add_argument(
        "--accept-license",
        action="append",
        default=[],
        metavar="SPDX",
        help="accept a license that restricts the use of an encoder, such as CC-BY-NC-4.0; repeatable",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_item_source(parser)
    add_encoders(parser)
    parser.add_argument(
        "--modalities", nargs="+", metavar="NAME", help="modalities to encode, in this order (default: all)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="encode only the first N items")
    add_settings(parser, EmbedConfig)
    parser.add_argument("--ray-address", metavar="ADDRESS", help="address of the Ray cluster, or `auto`")
    parser.add_argument(
        "--reuse", metavar="STORE", help="copy columns with the same cells, encoder and settings from another store"
    )
    parser.add_argument("--keep-parts", action="store_true", help="keep the folder with the parts of the run")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the store, and discard an unfinished run with other settings"
    )
    parser.add_argument("--offline", action="store_true", help="raise an error instead of downloading an encoder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/embed"),
        metavar="STORE",
        help="folder of the store (default: runs/embed)",
    )
    add_resume(parser)


COMMAND = Command(
    name="embed",
    summary="encode images, text, audio, video and vectors into a store of features",
    usage="SOURCE ... [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
