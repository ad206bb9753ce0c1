"""Format tables, counts and lists as plain text."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path


def table_lines(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Values with intervals, such as `11.4 % [10.4, 12.5]`, are aligned by value and interval bounds."""
    columns = [_align_intervals(column) for column in zip(*body, strict=True)]
    rows: list[Sequence[str]] = [head, *zip(*columns, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


_INTERVAL = re.compile(r"(\S+(?: %)?) \[(\S+), (\S+)\](.*)")


def _align_intervals(column: Sequence[str]) -> list[str]:
    found = [_INTERVAL.fullmatch(cell) for cell in column]
    parts = [match.groups() for match in found if match]
    value, low, high = (max((len(part[i]) for part in parts), default=0) for i in range(3))
    return [
        f"{match[1]:>{value}} [{match[2]:>{low}}, {match[3]:>{high}}]{match[4]}" if match else cell
        for match, cell in zip(found, column, strict=True)
    ]


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(fraction: float) -> str:
    """Return `11.4 %`, with a second decimal below 1 %."""
    value = 100 * fraction
    return f"{value:.2f} %" if 0 < value < 1 else f"{value:.1f} %"


def duration(seconds: float) -> str:
    """Return `19 s`, `4 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def repeat_command(command: str, out: str | os.PathLike[str]) -> str:
    """The paths in `config.yaml` are relative to the working directory of the command."""
    folder = Path(out)
    again = folder.with_name(f"{folder.name}-again") if folder.name not in ("", "..") else folder / "again"
    config = shlex.quote((folder / "config.yaml").as_posix())
    return f"unialign {command} --config {config} --out {shlex.quote(again.as_posix())}"


def join_words(words: Iterable[str]) -> str:
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else ""
