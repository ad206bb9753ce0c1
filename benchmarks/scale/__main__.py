"""Check the model of costs on one, two and four processes, and write the tables of the page "Scale".

python -m benchmarks.scale          counts the costs, and writes results/scale.json and the tables; about two minutes
python -m benchmarks.scale table    writes only the tables
"""

import json
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.pages import RESULTS, ROOT, write_results
from benchmarks.scale.measure import measure
from benchmarks.scale.page import inputs, page

RESULT, PAGE = RESULTS / "scale.json", ROOT / "docs" / "scale.md"


def main() -> None:
    if sys.argv[1:] != ["table"]:
        write_results(RESULT, measure())
    there = PAGE.read_text("utf-8") if PAGE.exists() else None
    PAGE.write_text(page(json.loads(RESULT.read_text("utf-8")), inputs(), there), "utf-8")


if __name__ == "__main__":
    main()
