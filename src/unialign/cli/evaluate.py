"""`unialign evaluate`: measure a trained space."""

import argparse
import os
from pathlib import Path

from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import add_data, check_sources
from unialign.config import EvaluateConfig
from unialign.data import list_datasets
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign evaluate runs/train/space emoji
  unialign evaluate runs/train/space my-store/ --split val --out runs/validation
  unialign evaluate runs/train/space held-out.npz
  unialign evaluate runs/train/space large-store/ --sample 2000"""


def run(options: argparse.Namespace) -> int:
    values = EvaluateConfig.read(options.config).to_dict() if options.config else {}
    sources = tuple(options.data) or tuple(filter(None, [values.get("data")]))
    space = options.space or values.get("space")
    if space is None or not sources:
        raise ConfigError(
            "no space or no data is given; name the space and the data, as in "
            "`unialign evaluate runs/train/space emoji`, or give --config"
        )
    check_sources(sources)
    if space in list_datasets() or os.path.isfile(space) or os.path.exists(Path(space) / "store.json"):
        swapped = (Path(sources[0]) / "config.json").exists()
        example = f"{sources[0]} {space}" if swapped else f"runs/train/space {space}"
        raise ConfigError(f"{space} is data, not a space; give the space first, as in `unialign evaluate {example}`")
    if options.data:
        values["fingerprint"] = None  # The fingerprint in the file belongs to the data in the file.
    given = given_settings(options, EvaluateConfig)
    config = EvaluateConfig.from_dict(values | given | {"space": space, "data": sources[0]})

    from unialign.cli._evaluate import evaluate

    return evaluate(config, sources, options.out, id=options.id)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "space", nargs="?", metavar="SPACE", help="folder written by `Space.save_pretrained`, or a Hub id"
    )
    add_data(parser)
    add_config_file(parser, "evaluation")
    add_settings(parser, EvaluateConfig, only=("split", "anchor", "sample", "resamples"))
    add_out(parser, "evaluate")


COMMAND = Command(
    name="evaluate",
    summary="measure a trained space: retrieval in every direction, joint queries, clustering, gap and conflict",
    usage="SPACE DATA [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
