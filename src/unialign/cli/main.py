"""The `unialign` command. Parsing imports nothing heavy; each command's module is imported when it runs."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from unialign._version import __version__
from unialign.cli._options import EXAMPLES, add_options
from unialign.distributed import read_process_info
from unialign.errors import ConfigError, UniAlignError

__all__ = ["execute", "main"]

_TERMINATED = 128 + signal.SIGTERM

_COMMANDS = {
    "demo": "train UniAlign and its rivals on the shipped emoji set, compare them, write the report",
    "train": "train one space from a store or a shipped data set",
    "evaluate": "measure a trained space: retrieval in every direction, joint queries, clustering, gap, conflict",
    "compare": "the same budget for several objectives and seeds; paired significance; one table",
    "diagnose": "what is wrong with these embeddings? anybody's files, in words, numbers and a report",
    "generate": "pictures from any modality, mixture or new text, through a decoder of image embeddings",
    "decoder": "train a decoder of image embeddings on pictures, or look at what one makes of held-out ones",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 2 an expected error, 130 interrupted, 143 terminated."""
    # A waiting OpenMP thread that spins starves every other process; this must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the caller: the work matters, not what is said about it
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    return execute(f"unialign {options.command}", partial(_run, options))


def execute(program: str, run: Callable[[], int]) -> int:
    """Call a command's function and turn expected errors and signals into one line on stderr and an exit status."""
    previous = _terminate_as_exit()
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
        print(f"{program}: terminated; the same command continues", file=sys.stderr)
        return _TERMINATED
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _run(options: argparse.Namespace) -> int:
    _refuse_copies(options.command)
    return int(import_module(f"unialign.cli.{options.command}").run(options))


def _refuse_copies(command: str) -> None:
    # Under SLURM each task may well be a command of its own; torchrun starts the same one many times.
    if command != "train" and "RANK" in os.environ and (place := read_process_info(os.environ)) is not None:
        raise ConfigError(
            f"torchrun started this command {place.world_size} times; only `train` works on many processes, start "
            f"`unialign {command}` without torchrun"
        )


def _terminate_as_exit() -> Any:
    """Let SIGTERM unwind the command, so that workers are told; the old handler, or None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def leave(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    return signal.signal(signal.SIGTERM, leave)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unialign",
        allow_abbrev=False,
        description="One embedding space for any number of modalities: train it, measure it, compare objectives.",
        epilog="Start with `unialign demo`. `unialign COMMAND --help` explains each command with an example.",
    )
    parser.add_argument("--version", action="version", version=f"unialign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=EXAMPLES[name],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_options(name, command)
    return parser
