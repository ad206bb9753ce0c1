"""Generate shell completion scripts that do not run Python."""

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unialign import registry
from unialign._datasets import list_datasets
from unialign.cli._command import Parser

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class _Option:
    flag: str
    help: str
    values: tuple[str, ...]  # allowed values; empty if any value is allowed
    takes_value: bool


@dataclass(frozen=True)
class _CommandWords:
    name: str
    summary: str
    options: tuple[_Option, ...]
    actions: tuple[str, ...]
    data: tuple[str, ...]


def script(shell: Shell, parsers: Mapping[str, Parser]) -> str:
    commands = [_words(name.partition(" ")[2], parser) for name, parser in parsers.items() if " " in name]
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _words(name: str, parser: argparse.ArgumentParser) -> _CommandWords:
    options: dict[str, _Option] = {}
    actions: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    for action in _all_actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            actions = tuple(action.choices)
        elif not action.option_strings:
            data = (
                tuple(map(str, action.choices or (list_datasets() if action.dest in ("data", "files") else ()))) or data
            )
        for flag in action.option_strings:
            if flag.startswith("--"):
                options.setdefault(flag, _option(flag, action))
    summary = (parser.description or "").rstrip(".")
    return _CommandWords(name, summary, tuple(options.values()), actions, data)


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _all_actions(part)


def _option(flag: str, action: argparse.Action) -> _Option:
    text = (action.help or "").replace("%%", "%").partition(" (default")[0]
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    values = tuple(map(str, action.choices or ()))
    if metavar.startswith("{"):
        values = tuple(metavar.strip("{}").split(","))
    elif action.dest in ("objective", "objectives"):
        values = registry.names("objectives")
    return _Option(flag, text, values, action.nargs != 0)


def _bash(commands: Sequence[_CommandWords]) -> str:
    values, flags, words = [], [], []
    for command in commands:
        for option in command.options:
            if option.values:
                values.append(f'    "{command.name} {option.flag}") words="{" ".join(option.values)}" files="" ;;')
            elif option.takes_value:
                values.append(f'    "{command.name} {option.flag}") words="" ;;')
        flags.append(f'    {command.name}) words="{" ".join(option.flag for option in command.options)}" ;;')
        words.append(f'    {command.name}) words="{" ".join((*command.actions, *command.data))}" ;;')
    lines = [
        "_unialign() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"',
        '  local command="${COMP_WORDS[1]}" words="" files="yes"',
        "  COMPREPLY=()",
        "  if [[ $COMP_CWORD -eq 1 ]]; then",
        f'    words="{" ".join(command.name for command in commands)} --help --version"',
        '    COMPREPLY=($(compgen -W "$words" -- "$cur")); return',
        "  fi",
        '  if [[ "$cur" == -* ]]; then',
        '    case "$command" in',
        *flags,
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$cur")); return',
        "  fi",
        '  case "$command $prev" in',
        *values,
        '    *) case "$command" in',
        *words,
        "    esac ;;",
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        "  local name",  # file names may contain spaces
        '  if [[ $files ]]; then while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -f -- "$cur"); fi',
        "}",
        "complete -o filenames -F _unialign unialign",
    ]
    return "\n".join(lines) + "\n"


def _zsh(commands: Sequence[_CommandWords]) -> str:
    lines = [
        "#compdef unialign",
        "_unialign() {",
        "  local -a commands",
        "  commands=(",
        *(f"    {shlex.quote(command.name + ':' + command.summary)}" for command in commands),
        "  )",
        "  if (( CURRENT == 2 )); then _describe command commands; return; fi",
        "  local command=$words[2]",
        "  shift words; (( CURRENT-- ))",
        "  case $command in",
    ]
    for command in commands:
        rest = (*command.actions, *command.data)
        positional = f"_alternative 'words:word:({' '.join(rest)})' 'files:file:_files'" if rest else "_files"
        lines.append(f"    {command.name}) _arguments \\")
        lines += [f"      {shlex.quote(_zsh_option(option))} \\" for option in command.options]
        lines.append(
            f"      {shlex.quote('*:: :{ ' + positional + ' }' if not rest else '*: :{ ' + positional + ' }')} ;;"
        )
    return (
        "\n".join(
            [
                *lines,
                "  esac",
                "}",
                'if [[ "$funcstack[1]" == _unialign ]]; then _unialign "$@"; else',
                "  compdef _unialign unialign",
                "fi",
            ]
        )
        + "\n"
    )


def _zsh_option(option: _Option) -> str:
    text = "".join("\\" + c if c in "[]:\\" else c for c in option.help)
    value = f":value:({' '.join(option.values)})" if option.values else ":value:_files" if option.takes_value else ""
    return f"*{option.flag}[{text}]{value}"


def _fish(commands: Sequence[_CommandWords]) -> str:
    names = " ".join(command.name for command in commands)
    start = f"not __fish_seen_subcommand_from {names}"
    lines = ["complete -c unialign -e"]
    for command in commands:
        used = f"__fish_seen_subcommand_from {command.name}"
        lines.append(_fish_line(start, arguments=command.name, text=command.summary, only=True))
        for word in (*command.actions, *command.data):
            lines.append(_fish_line(used, arguments=word))
        for option in command.options:
            lines.append(_fish_line(used, option=option, text=option.help))
    return "\n".join(lines) + "\n"


def _fish_line(
    condition: str, *, option: _Option | None = None, arguments: str = "", text: str = "", only: bool = False
) -> str:
    parts = ["complete -c unialign", f"-n {_fish_quoted(condition)}"]
    if option is not None:
        parts.append(f"-l {option.flag.removeprefix('--')}")
        parts += ["-x -a " + _fish_quoted(" ".join(option.values))] if option.values else ["-r"] * option.takes_value
    if arguments:
        parts.append(("-f " if only else "") + f"-a {_fish_quoted(arguments)}")
    return " ".join([*parts, *([f"-d {_fish_quoted(text)}"] if text else [])])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
