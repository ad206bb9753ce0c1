"""Define the commands of `unialign` and the parser of their options."""

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from unialign._checks import check_choice
from unialign.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """A command, defined in a module of `unialign.cli` or by another package's entry point `unialign.commands`.

    The module that defines a command must not import torch, so that help and error messages appear immediately; `run`
    imports the implementation.

    Attributes:
        name: the word after `unialign`; for built-in commands, the module name.
        summary: phrase for the list of commands, without a final period.
        usage: arguments in the usage line, such as `DATA [options]`.
        examples: complete command lines and remarks, shown by `--help`.
        add_options: function that adds the options to the command's parser.
        run: function that takes the parsed options and returns the exit status; it raises UniAlignError on expected
            errors.
        multiprocess: whether the command supports several processes under torchrun.
    """

    name: str
    summary: str
    usage: str
    examples: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    multiprocess: bool = False


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises ConfigError and suggests the closest option or value."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)
        # Names of settings that are mappings, whose entries are set with `--set`; used for suggestions in errors.
        self.mappings: list[str] = []

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        options, unknown = self.parse_known_args(words)
        if unknown:
            known = {option: option for option in _option_strings(self)}
            known |= {f"--{name.replace('_', '-')}": f"--set {name}.KEY=VALUE" for name in self.mappings}
            close = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            hint = f"did you mean {known[close[0]]}?" if close else f"see {self.prog} --help"
            raise ConfigError(f"unknown option {unknown[0]}; {hint}")
        return options

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None:
            check_choice((action.option_strings or [action.dest])[0], value, action.choices)


def with_options(message: str, parser: argparse.ArgumentParser) -> str:
    """Replace the names of Python arguments in an error message by command-line options."""
    known = set(_option_strings(parser))
    for option in {"--resume", "--device"} & known:
        message = re.sub(rf"\b{option[2:]}='(\w+)'", rf"{option} \1", message)
    for option in {"--max-broken", "--retry-broken", "--allow-changed"} & known:
        message = re.sub(rf"\b{option[2:].replace('-', '_')}(=True)?\b", option, message)
    if "--out" in known:
        message = re.sub(r"\bchoose another (folder|out)\b", "choose another --out", message)
    if "--modalities" not in known:
        message = re.sub(r",?( and choose)? with --modalities", "", message)
    return message


def _option_strings(parser: argparse.ArgumentParser) -> Iterable[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _option_strings(part)


def command_parser(command: Command) -> Parser:
    parser = Parser(
        prog=f"unialign {command.name}",
        usage=f"unialign {command.name} {command.usage}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"examples:\n{command.examples}",
    )
    command.add_options(parser)
    _add_quiet(parser)
    return parser


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quiet", action="store_true", default=argparse.SUPPRESS, help="print only warnings and errors"
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                _add_quiet(part)


def add_out(parser: argparse.ArgumentParser, name: str, *, what: str = "results folder", metavar: str = "DIR") -> None:
    default = Path("runs") / name
    help_text = f"{what} (default: {default.as_posix()})"
    parser.add_argument("--out", type=results_folder, default=default, metavar=metavar, help=help_text)


def add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume",
        choices=("never", "auto", "required"),
        default="auto",
        help="whether to continue the run in --out: `auto` continues an existing run or starts a new one, `required` "
        "fails without a run to continue, `never` fails if a run exists (default: auto)",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def _device(text: str) -> str:
    # Validate without importing torch, so that a typo is reported immediately.
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; expected auto, cpu, cuda or cuda:NUMBER")
    return text


def results_folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a path, got an empty string")
    return Path(text)
