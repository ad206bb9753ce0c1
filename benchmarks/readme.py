"""Keep the results of a recipe and write its table into a page.

python -m benchmarks.readme runs/demo      the README
python -m benchmarks.readme runs/digits    the page on the recipe
"""

import json
import shutil
import sys
from pathlib import Path

from benchmarks.pages import RESULTS, ROOT, write_block
from unialign.report import text_table, verdict_lines

# Name of the data set -> file of the results and page of the table.
KEPT = {
    "emoji": (RESULTS / "demo.json", ROOT / "README.md"),
    "digits": (RESULTS / "digits.json", ROOT / "docs" / "findings" / "recipe.md"),
}


def block(results: dict) -> str:
    return f"```text\n{text_table(results)}\n```\n\n{verdict_lines(results)[0]}\n"


def main() -> None:
    folder = Path(sys.argv[1])
    results = json.loads((folder / "results.json").read_text("utf-8"))
    kept, page = KEPT[results["data"]["name"]]
    shutil.copyfile(folder / "results.json", kept)
    write_block(page, kept, block(results))


if __name__ == "__main__":
    main()
