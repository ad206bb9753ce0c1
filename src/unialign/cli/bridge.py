"""`unialign bridge`: map an index to a new embedding model, and estimate the loss before the switch."""

import argparse

from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.config import BridgeConfig
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign bridge old-index.npy new-sample.npy --pairs rows.txt
  unialign bridge old.parquet new.parquet --queries log.npy --write-index
  unialign bridge old-index.npy --plan 240

OLD is the whole index, embedded with the old model. NEW is a random sample of its items, embedded with the new model;
at least 240 are recommended. --pairs lists their row numbers or ids; files with ids are joined without --pairs. The
verdict is `switch now`, `switch with C = 100` or `re-embed or stay`. The results folder contains bridge.safetensors and
bridge.json, which `unialign.migration.Bridge.load` reads. Without NEW, --plan only chooses the rows to embed first and
writes plan.txt. These rows are near the centers of clusters. They are good for fitting the map, but the intervals
require a random sample."""


def run(options: argparse.Namespace) -> int:
    values = BridgeConfig.read(options.config).to_dict() if options.config else {}
    given = given_settings(options, BridgeConfig)
    files = {key: getattr(options, f"{key}_file") for key in ("old", "new") if getattr(options, f"{key}_file")}
    config = BridgeConfig.from_dict(_with_old(values | given | files))
    if config.new is None and config.plan is None:
        raise ConfigError("no new rows are given; pass their file after the old index, or choose rows with --plan N")

    from unialign.cli._bridge import bridge_files

    return bridge_files(config, options.out)


def _with_old(values: dict[str, object]) -> dict[str, object]:
    if "old" not in values:
        raise ConfigError(
            "no file is given; pass the old index and the new rows, as in `unialign bridge old.npy new.npy --pairs "
            "rows.txt`, or give --config"
        )
    return values


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "old_file", nargs="?", metavar="OLD", help="file or store with the whole index, as embeddings by the old model"
    )
    parser.add_argument(
        "new_file", nargs="?", metavar="NEW", help="file with embeddings of the sampled items by the new model"
    )
    add_config_file(parser, "bridge")
    add_settings(parser, BridgeConfig, skip=("old", "new"))
    add_out(parser, "bridge")


COMMAND = Command(
    name="bridge",
    summary="map an index of embeddings to a new model, and estimate the loss of search quality before switching",
    usage="OLD [NEW] [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
