"""Keep the results of a recipe and write its table into a page.

python -m benchmarks.readme runs/demo      the README
python -m benchmarks.readme runs/digits    the page on the recipe
"""

import json
import re
import shutil
import sys
from pathlib import Path

from unialign.report import text_table, verdict_lines

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Name of the data set -> file of the results and page of the table.
KEPT = {
    "emoji": (RESULTS / "demo.json", ROOT / "README.md"),
    "digits": (RESULTS / "digits.json", ROOT / "docs" / "findings" / "recipe.md"),
}


def block(results: dict) -> str:
    """Return the block between the markers: the table, and the verdict in one sentence."""
    return f"```text\n{text_table(results)}\n```\n\n{verdict_lines(results)[0]}\n"


def main() -> None:
    folder = Path(sys.argv[1])
    results = json.loads((folder / "results.json").read_text("utf-8"))
    kept, page = KEPT[results["data"]["name"]]
    shutil.copyfile(folder / "results.json", kept)
    name = kept.relative_to(ROOT).as_posix()
    table = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    page.write_text(table.sub(lambda found: found[1] + block(results) + found[2], page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
