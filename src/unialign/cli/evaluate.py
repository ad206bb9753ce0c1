"""`unialign evaluate`: measure a trained space."""

import argparse
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign._checks import check_choice
from unialign.cli._command import Command, add_out
from unialign.cli._items import add_item_options
from unialign.cli._media import EMBEDDING_SETTINGS
from unialign.cli._protocols import PROTOCOLS, Protocol
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import add_data, check_sources
from unialign.config import EmbedConfig, EvaluateConfig, read_yaml
from unialign.data import list_datasets
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign evaluate runs/train/space emoji
  unialign evaluate runs/train/space my-store/ --split val --out runs/validation
  unialign evaluate runs/train/space held-out.npz
  unialign evaluate runs/train/space large-store/ --sample 2000
  unialign evaluate runs/train/space msrvtt/ --protocol gram --captions first
  unialign evaluate runs/train/space emoji --protocol omni
  unialign evaluate runs/train/space photos/ --rule image=.jpg --rule text=.txt

DATA is a store, a data set or files of features; or media (the folder of an item table, the folder of the annotations
of a benchmark, or any source with --rule, --kind, --layout or --reader), which the encoders of the space encode into
`store/` of --out."""


def run(options: argparse.Namespace) -> int:
    protocol = _protocol(options)
    values = protocol.config.read(options.config).to_dict() if options.config else {}
    sources = tuple(options.data) or tuple(filter(None, [values.get("data")]))
    space = options.space or values.get("space")
    if space is None or not sources:
        raise ConfigError(
            "no space or no data is given; pass the space and the data, as in "
            "`unialign evaluate runs/train/space emoji`, or give --config"
        )
    check_sources(sources)
    if space in list_datasets() or os.path.isfile(space) or os.path.exists(Path(space) / "store.json"):
        swapped = (Path(sources[0]) / "config.json").exists()
        example = f"{sources[0]} {space}" if swapped else f"runs/train/space {space}"
        raise ConfigError(f"{space} is data, not a space; pass the space first, as in `unialign evaluate {example}`")
    if options.data:
        values["fingerprint"] = None  # The fingerprint in the file belongs to the data in the file.
    given = given_settings(options, protocol.config)
    config = protocol.config.from_dict(values | given | {"space": space, "data": sources[0]})
    return int(import_module(protocol.module).evaluate(config, sources, options))


def _protocol(options: argparse.Namespace) -> Protocol:
    """Return the protocol of the option or of the file; raise ConfigError for options that it lacks."""
    found: Mapping[str, Any] = read_yaml(options.config) if options.config else {}
    given = getattr(options, "chosen_protocol", None)
    name = given or found.get("protocol", "all")
    check_choice("--protocol", name, tuple(PROTOCOLS))
    known = {entry.name for entry in PROTOCOLS[name].config.settings()}
    for owner, protocol in PROTOCOLS.items():
        options_of = [entry.name for entry in protocol.config.settings()]
        for setting in options_of:
            if hasattr(options, setting) and setting not in known and setting not in ("space", "data"):
                option = setting.replace("_", "-")
                raise ConfigError(f"--{option} has no effect with --protocol {name}; it needs --protocol {owner}")
    return PROTOCOLS[name]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "space", nargs="?", metavar="SPACE", help="folder written by `Space.save_pretrained`, or a Hub id"
    )
    add_data(parser)
    parser.add_argument(
        "--protocol",
        dest="chosen_protocol",
        choices=tuple(PROTOCOLS),
        help="all metrics in every direction, or `gram`: captions against all modalities of a clip, as in papers on "
        "video retrieval; or `omni`: each pair of modalities on the same items (default: all)",
    )
    add_config_file(parser, "evaluation")
    add_settings(parser, EvaluateConfig, only=("split", "anchor", "sample", "resamples"))
    for name, protocol in PROTOCOLS.items():
        if protocol.options:
            add_settings(parser, protocol.config, only=protocol.options, title=f"settings of --protocol {name}")
    add_item_options(parser)
    add_settings(parser, EmbedConfig, only=EMBEDDING_SETTINGS, title="embedding of media")
    add_out(parser, "evaluate")


COMMAND = Command(
    name="evaluate",
    summary="measure a trained space: retrieval in every direction, joint queries, clustering, gap and conflict",
    usage="SPACE DATA [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
