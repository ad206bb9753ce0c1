"""Write generated tables into pages, between the markers of their results files."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def write_block(page: Path, results: Path, text: str) -> None:
    name = re.escape(results.relative_to(ROOT).as_posix())
    block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)", re.DOTALL)
    written, count = block.subn(lambda found: found[1] + text + found[2], page.read_text("utf-8"))
    if count == 0:
        raise ValueError(f"{page} has no block for {results.name}")
    page.write_text(written, "utf-8")


def write_results(path: Path, results: dict[str, Any]) -> None:
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", "utf-8")


def measure_and_write(
    results: Path, measure: Callable[[], dict[str, Any]], tables: dict[Path, Callable[[dict[str, Any]], str]]
) -> None:
    """If the first argument of the command is `table`, use the stored results."""
    if sys.argv[1:] != ["table"]:
        write_results(results, measure())
    stored = json.loads(results.read_text("utf-8"))
    for page, table in tables.items():
        write_block(page, results, table(stored))
