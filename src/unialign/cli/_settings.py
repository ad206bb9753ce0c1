"""Derive command-line options from the fields of a configuration."""

import argparse
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from unialign._checks import suggestion
from unialign._plain_text import join_words
from unialign.cli._command import Parser
from unialign.config import Config, Setting, parse_yaml
from unialign.errors import ConfigError

# Options that take a list of modalities; their names may also be separated by commas.
_NAME_LISTS = {"modalities", "source", "joint"}


def add_config_file(parser: argparse.ArgumentParser, writer: str) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"config.yaml of an earlier {writer}; options override its settings"
    )


def add_settings(
    parser: argparse.ArgumentParser,
    config: type[Config],
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    title: str = "settings",
) -> None:
    """Add an option per setting. Options that are not given are absent from the parsed options, so that they do not
    override settings.
    """
    group = parser.add_argument_group(title)
    settings = [entry for entry in config.settings() if entry.name not in skip and (only is None or entry.name in only)]
    for entry in settings:
        if entry.config is None and entry.kind is not Mapping:
            _add_setting(group, entry)
    if mappings := [entry for entry in settings if entry.config is None and entry.kind is Mapping]:
        if isinstance(parser, Parser):
            parser.mappings = [entry.name for entry in mappings]
        example = "temperature=0.1" if mappings[0].name == "objective_options" else "KEY=VALUE"
        details = "; ".join(f"{entry.name}: {entry.help}" for entry in mappings)
        group.add_argument(
            "--set",
            nargs="+",
            action="extend",
            metavar="KEY=VALUE",
            default=[],
            help=f"entries of {join_words([entry.name for entry in mappings])}, such as "
            f"{mappings[0].name}.{example} ({_escaped(details)})",
        )


def given_settings(options: argparse.Namespace, config: type[Config]) -> dict[str, Any]:
    given = {entry.name: getattr(options, entry.name) for entry in config.settings() if hasattr(options, entry.name)}
    for key in _NAME_LISTS & given.keys():
        if given[key] is not None:
            given[key] = split_names(given[key])
    return given | _parse_entries(getattr(options, "set", []), config)


def split_names(words: Iterable[str]) -> list[str]:
    return [name.strip() for word in words for name in word.split(",") if name.strip()]


def _parse_entries(pairs: list[str], config: type[Config]) -> dict[str, Any]:
    """Parse `MAPPING.KEY=VALUE` with YAML values."""
    mappings = [entry.name for entry in config.settings() if entry.kind is Mapping]
    names = [entry.name for entry in config.settings()]
    entries: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        mapping, dot, _ = key.partition(".")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, got {pair!r}")
        if key in names and key not in mappings:
            raise ConfigError(f"--set {pair}: {key} is not an entry of a mapping; use --{key.replace('_', '-')}")
        if mapping not in mappings or not dot:
            expected = f"expected an entry of {' or '.join(mappings)}, such as {mappings[0]}.KEY"
            raise ConfigError(f"--set {pair}: {expected}{suggestion(mapping, mappings)}")
        entries[key] = _value(key, value)
    return entries


def _add_setting(group: Any, entry: Setting) -> None:
    flag, text = f"--{entry.name.replace('_', '-')}", _escaped(entry.help)
    if "(default: " not in text and not entry.is_required:
        default = " ".join(map(str, entry.default)) if isinstance(entry.default, tuple) else entry.default
        text += f" (default: {'none' if default is None else default})"
    if entry.kind is bool:
        group.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=_escaped(entry.help))
        return
    lists: dict[str, Any] = {"nargs": "+", "action": "extend"} if entry.is_list else {}
    names = {int: "N", float: "X"}.get(entry.kind, "NAME" if entry.is_list else "TEXT")
    metavar = f"{{{','.join(entry.choices)}}}" if entry.choices else names
    group.add_argument(flag, type=_reader(entry), default=argparse.SUPPRESS, metavar=metavar, help=text, **lists)


def _reader(entry: Setting) -> Any:
    def read(text: str) -> Any:
        if text in entry.words:
            return text
        return None if entry.is_optional and text.lower() in ("none", "null") else entry.kind(text)

    read.__name__ = entry.kind.__name__  # argparse shows this name in errors such as "invalid int value"
    return read


def _value(key: str, text: str) -> Any:
    value = parse_yaml(text, f"--set {key}: {text!r} cannot be parsed as YAML")
    try:
        return float(value) if isinstance(value, str) else value  # YAML parses 1e-3 as a string
    except ValueError:
        return value


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
