"""Print the output of commands, with a progress bar on a terminal and plain lines elsewhere."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from unialign._plain_text import percent
from unialign.cli._quiet import is_quiet
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.experiments import RunRecord


def echo(text: str = "") -> None:
    """Print a line; a closed pipe or a full disk is ignored."""
    if is_quiet():
        return
    try:
        # Unlike `print`, `tqdm.write` keeps an active progress bar intact.
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except OSError:
        # Redirect the file descriptor, because the interpreter flushes the buffer of `sys.stdout` again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def chosen_workers(asked: int | None, runs: int) -> int:
    if asked is None:
        return max(1, min(os.cpu_count() or 1, runs))
    if asked < 1:
        raise ConfigError(f"--workers must be at least 1, got {asked}")
    return asked


@contextmanager
def run_progress(total: int, labels: Mapping[str, str]) -> Iterator[Callable[[str, int, "RunRecord"], None]]:
    done = itertools.count(1)
    with tqdm(total=total, unit="run", disable=is_quiet() or not sys.stderr.isatty(), leave=False) as bar:

        def finished(key: str, seed: int, record: "RunRecord") -> None:
            bar.update()
            took = "time unknown" if record.seconds is None else f"{record.seconds:.1f} s"
            recall, chance = record.evaluation.metrics["recall@1"], record.evaluation.chance.get("recall@1")
            above = "" if chance is None else f" (chance {percent(chance)})"
            echo(f"[{next(done)}/{total}] {labels[key]}, seed {seed}: {took}, R@1 {100 * recall:.1f} %{above}")
            for warning in record.warnings:
                echo(f"    health: {warning['message']}")

        yield finished


def shown(path: Path) -> str:
    """Return a path relative to the working directory if it is inside that directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
