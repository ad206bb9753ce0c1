"""Options of a mixture of sources, for `unialign train`."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from unialign._checks import suggestion
from unialign.cli._sources import check_sources
from unialign.config import MixtureMode, read_yaml
from unialign.errors import ConfigError


@dataclass(frozen=True)
class MixtureChoice:
    """Data of each source and the arguments of `unialign.data.Mixture`; `fingerprint` is the required one, if any."""

    sources: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, float]
    mode: MixtureMode = "alternate"
    epoch_steps: int | None = None
    shared_ids: bool = False
    fingerprint: str | None = None


def add_mixture_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mixture of sources")
    group.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME=DATA",
        help="name and data of a source of items, instead of DATA; repeat the option for each source, or with the same "
        "name for several files of a source",
    )
    group.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=X",
        help="weight of a source relative to the others, repeatable (default: 1)",
    )
    group.add_argument(
        "--mix",
        choices=get_args(MixtureMode),
        default=None,
        help="`alternate`: each batch has items of one source; `blend`: each batch has items of all sources (default: "
        "alternate)",
    )
    group.add_argument(
        "--epoch-steps",
        type=int,
        metavar="N",
        help="number of steps per epoch (default: as many as needed to visit the largest source once)",
    )
    group.add_argument(
        "--shared-ids",
        action="store_true",
        help="equal ids in different sources refer to the same item (default: they are different)",
    )


def chosen_mixture(options: argparse.Namespace) -> MixtureChoice | None:
    """Return the mixture defined by the options, or by the configuration file with the given options applied.

    Raises:
        ConfigError: an option is malformed, or has no sources that it belongs to.
    """
    if options.source and options.data:
        raise ConfigError(
            f"--source names the data of each source, so {options.data[0]} belongs to none; add "
            f"--source NAME={options.data[0]} or leave it out"
        )
    sources = _sources(options.source)
    found = None
    if sources:
        check_sources([source for files in sources.values() for source in files])
        found = MixtureChoice(sources, {})
    elif options.config and not options.data:
        found = _read(options.config)
    if found is None:
        given = [("--weight", options.weight), ("--mix", options.mix), ("--epoch-steps", options.epoch_steps)]
        for option, value in [*given, ("--shared-ids", options.shared_ids)]:
            if value:
                raise ConfigError(f"{option} describes a mixture; specify its sources with --source NAME=DATA")
        return None
    changes: dict[str, Any] = {"weights": {**found.weights, **_weights(options.weight, found.sources)}}
    changes |= {} if options.mix is None else {"mode": options.mix}
    changes |= {} if options.epoch_steps is None else {"epoch_steps": options.epoch_steps}
    changes |= {"shared_ids": True, "fingerprint": None} if options.shared_ids and not found.shared_ids else {}
    return replace(found, **changes)


def _sources(entries: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, sign, data = entry.partition("=")
        if not (name and sign and data):
            raise ConfigError(f"--source must have the form NAME=DATA, got {entry!r}")
        found[name] = (*found.get(name, ()), data)
    if len(found) == 1:
        raise ConfigError(f"a mixture needs at least two sources, got only {next(iter(found))!r}; add another --source")
    return found


def _weights(entries: list[str], sources: Mapping[str, object]) -> dict[str, float]:
    found = {}
    for entry in entries:
        name, _, text = entry.partition("=")
        if name not in sources:
            raise ConfigError(
                f"--weight {entry} does not name a source{suggestion(name, sources, otherwise=', '.join(sources))}"
            )
        try:
            found[name] = float(text)
        except ValueError:
            raise ConfigError(f"--weight must have the form NAME=NUMBER, got {entry!r}") from None
    return found


def _read(file: Path) -> MixtureChoice | None:
    data = read_yaml(file).get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("mixture"), Mapping):
        return None
    mixture, paths = data["mixture"], data.get("sources")
    if not isinstance(paths, Mapping):
        raise ConfigError(
            f"{file} has no data.sources (the sources of its run were not stores in folders); specify the sources "
            "with --source"
        )
    try:
        return MixtureChoice(
            sources={str(name): (str(paths[name]),) for name in mixture["sources"]},
            weights={str(name): float(source["weight"]) for name, source in mixture["sources"].items()},
            mode=mixture["mode"],
            epoch_steps=mixture["epoch_steps"],
            shared_ids=mixture["shared_ids"],
            fingerprint=data.get("fingerprint"),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"{file}: data.mixture was not written by `unialign train`") from None
