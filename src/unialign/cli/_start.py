"""The space from which `unialign train` starts."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from unialign.cli._settings import split_names
from unialign.config import TrainConfig, read_yaml
from unialign.errors import ConfigError


@dataclass(frozen=True)
class Start:
    """The space from which a run starts.

    Attributes:
        space: folder, or `owner/name` on the Hub.
        train: modalities to train; None: all.
        weights: required digest of its weights; None: any.
        given: training settings that were given; the others are taken from the space.
    """

    space: str
    train: tuple[str, ...] | None
    weights: str | None
    given: tuple[str, ...]


def resolve_start(options: argparse.Namespace, given: tuple[str, ...]) -> Start | None:
    """Return the space from which the run starts, from the options or, without them, from the file.

    `given` are the names of the settings that were given, as options or in a file.
    """
    train = None if options.train is None else tuple(split_names(options.train))
    if options.init_from is not None:
        return Start(options.init_from, train, None, given)
    start = _read_start(options.config) if options.config else None
    if start is None and train is not None:
        raise ConfigError("--train selects modalities of an existing space, so --init-from SPACE is required")
    return start if start is None or train is None else replace(start, train=train)


def _read_start(file: Path) -> Start | None:
    raw = read_yaml(file)
    found = raw.get("init_from")
    if found is None:
        return None
    if not isinstance(found, Mapping) or not isinstance(found.get("weights"), str):
        raise ConfigError(f"{file}: init_from must have the entry `weights`, as in a config.yaml of `unialign train`")
    path, train = found.get("path"), found.get("train")
    if not isinstance(path, str):
        raise ConfigError(
            f"{file} is from a run that continued from a space in memory (`fit(..., init_from=...)`); specify the "
            "folder of this space with --init-from"
        )
    if train is not None and not (isinstance(train, list) and all(isinstance(name, str) for name in train)):
        raise ConfigError(f"{file}: init_from.train must be a list of modalities, got {train!r}")
    settings = [entry.name for entry in TrainConfig.settings()]
    return Start(path, None if train is None else tuple(train), found["weights"], given=tuple(settings))


def add_start(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("continue from a space")
    group.add_argument(
        "--init-from",
        metavar="SPACE",
        help="folder of a space, or owner/name on the Hub, whose weights the run starts from; the settings of its "
        "heads are the defaults of this run",
    )
    group.add_argument(
        "--train",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="modalities to train, such as a new one; all others keep the weights of --init-from, and the result has "
        "all modalities of both (default: all)",
    )
