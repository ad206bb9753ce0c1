"""`unialign tune`: choose training settings on the validation split."""

import argparse
from collections.abc import Mapping
from typing import Any

from unialign._checks import suggestion
from unialign.cli._command import Command, add_device, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings, split_names
from unialign.cli._sources import add_data, required_data
from unialign.config import FIXABLE, HyperparameterSearchConfig, TrainConfig, read_yaml
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign tune emoji --minutes 5
  unialign tune my-store/ --metric recall@1 --trials 100
  unialign tune emoji --metric recall@1 joint_recall@1 label_map --trials 60       a front of three metrics
  unialign tune image.npy text.npy --dim 64 --objectives unialign infonce kernel_gcca
  unialign tune my-store/ --sampler tpe --trials 200 --workers 8

The test split is read once at the end, for the chosen settings and the default. Repeating the command continues a
search that was interrupted, also with a larger --trials or --minutes. --out has `train.yaml` for `unialign train
--config` and `comparison/config.yaml` for `unialign compare --config`."""


def run(options: argparse.Namespace) -> int:
    """Search, write the report, and return the exit status."""
    file_sources: tuple[str, ...] = ()
    values: dict[str, Any] = {}
    if options.config:
        file_sources, values = _read(options)
    given = given_settings(options, HyperparameterSearchConfig)
    for name in ("metric", "objectives"):
        if name in given:
            given[name] = split_names(given[name])
    fixed = {name: value for name, value in given_settings(options, TrainConfig).items() if name in FIXABLE}
    if fixed:
        given["fixed"] = {**values.get("fixed", {}), **fixed}
    config = HyperparameterSearchConfig.from_dict({**values, **given})
    sources = required_data(tuple(options.data) or file_sources, "tune emoji")

    from unialign.cli._tune import tune_data

    return tune_data(sources, config, options)


def _read(options: argparse.Namespace) -> tuple[tuple[str, ...], dict[str, Any]]:
    raw = read_yaml(options.config)
    for key in raw:
        if key not in ("data", "search"):
            raise ConfigError(
                f"{options.config}: unknown key {key!r}{suggestion(key, ('data', 'search'))}; expected the keys `data` "
                f"and `search`, as in a config.yaml of `unialign tune`"
            )
    config = HyperparameterSearchConfig.read(options.config, "search")
    data = raw.get("data")
    path = data.get("path") if isinstance(data, Mapping) else None
    if path is not None and not isinstance(path, str):
        raise ConfigError(f"{options.config}: data.path must be a name or a path, got {path!r}")
    return (() if path is None else (path,)), config.to_dict()


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_config_file(parser, "search")
    add_settings(parser, HyperparameterSearchConfig, skip=("fixed",), title="search")
    add_settings(parser, TrainConfig, only=FIXABLE, title="training settings that are not searched (for all trials)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of trials that run in parallel (default: number of cores)"
    )
    add_device(parser)
    add_out(parser, "tune")


COMMAND = Command(
    name="tune",
    summary="choose objective, head and training settings on the validation split, and test the choice once",
    usage="[DATA ...] [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
