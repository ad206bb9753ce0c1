"""Copy a demo's results and write its table into the README: `python -m benchmarks.readme runs/demo`."""

import json
import re
import shutil
import sys
from pathlib import Path

from unialign.report import text_table, verdict_lines

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.compile(r"(<!-- table: benchmarks/results/demo.json -->\n).*?(<!-- /table -->)", re.DOTALL)


def block(results: dict) -> str:
    """Return the block between the markers: the table, and the verdict in one sentence."""
    return f"```text\n{text_table(results)}\n```\n\n{verdict_lines(results)[0]}\n"


def main() -> None:
    folder = Path(sys.argv[1])
    results = json.loads((folder / "results.json").read_text("utf-8"))
    kept = ROOT / "benchmarks" / "results" / "demo.json"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / "results.json", kept)
    readme = ROOT / "README.md"
    readme.write_text(TABLE.sub(lambda found: found[1] + block(results) + found[2], readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
