"""Entry point of `unialign`. Heavy imports are deferred, so that help and errors about names appear immediately."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from unialign import registry
from unialign._version import __version__
from unialign.cli._command import Command, Parser, command_parser, with_options
from unialign.cli._quiet import quiet
from unialign.errors import ConfigError, UniAlignError

_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 success, 2 expected error, 130 interrupted, 143 terminated."""
    # Keep idle OpenMP threads from starving other processes. The variable must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # the caller closed the stream: discard its output
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-"):
        return execute(f"unialign {words[0]}", partial(_run, words))
    return execute("unialign", partial(_overview, words))


def parsers() -> dict[str, Parser]:
    """Map program names (`unialign`, `unialign train`, ...) to parsers, for the command-line reference."""
    commands = {f"unialign {name}": command_parser(_command(name)) for name in registry.names("commands")}
    return {"unialign": _overview_parser(), **commands}


def execute(program: str, run: Callable[[], int]) -> int:
    previous, formatwarning = _terminate_as_exit(), warnings.formatwarning
    warnings.formatwarning = lambda message, *context: f"warning: {message}\n"
    try:
        return run()
    except UniAlignError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"{program}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if stop.code != _TERMINATED:
            raise
        print(f"{program}: terminated; run the same command again to continue", file=sys.stderr)
        return _TERMINATED
    finally:
        warnings.formatwarning = formatwarning
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _run(words: Sequence[str]) -> int:
    command = _command(words[0])
    parser = command_parser(command)
    options = parser.parse(words[1:])
    if not command.multiprocess:
        _check_one_process(command.name)
    try:
        with quiet(getattr(options, "quiet", False)):
            return command.run(options)
    except UniAlignError as error:
        error.args = (with_options(str(error), parser),)
        raise


def _overview(words: Sequence[str]) -> int:
    parser = _overview_parser()
    parser.parse(words)
    parser.print_help()
    return 0


def _command(name: str) -> Command:
    command = registry.load("commands", name)
    if not isinstance(command, Command):
        raise ConfigError(f"command {name!r} must be a unialign.cli.Command, got {command!r}")
    return command


def _overview_parser() -> Parser:
    summaries = {}
    for name in registry.names("commands"):
        try:
            summaries[name] = _command(name).summary
        except ConfigError as error:
            summaries[name] = f"unavailable: {error}"
    width = max(map(len, summaries))
    lines = "\n".join(f"  {name:{width}}  {summary}" for name, summary in summaries.items())
    parser = Parser(
        prog="unialign",
        usage="unialign [--help] [--version] COMMAND ...",
        description="One embedding space for any number of modalities: train it, measure it, compare objectives.",
        epilog=f"commands:\n{lines}\n\nStart with `unialign demo`. `unialign COMMAND --help` has options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"unialign {__version__}")
    return parser


def _check_one_process(command: str) -> None:
    from unialign.distributed import read_process_info

    # SLURM tasks may be independent commands, but torchrun always starts several copies of the same command.
    if "RANK" in os.environ and (process := read_process_info(os.environ)) is not None:
        raise ConfigError(
            f"torchrun started {process.world_size} processes, but only `train` supports several processes; run "
            f"`unialign {command}` without torchrun"
        )


def _terminate_as_exit() -> Any:
    """Return the old handler, or None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def leave(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    return signal.signal(signal.SIGTERM, leave)
