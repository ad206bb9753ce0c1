"""Copy the results of a study into the documentation, and update the tables and figures of its page.

python -m benchmarks.findings runs/study/ablation
python -m benchmarks.findings runs/study/recipe recipe_other_data   another page of the same study
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from research import load_page
from research._figures import failed_sections
from research.pages import Section, markdown_page, replace_blocks
from unialign.io import replace_file

FINDINGS = Path(__file__).resolve().parent.parent / "docs" / "findings"


def sections(results: dict[str, Any]) -> list[Section]:
    return [*load_page(results["study"]["name"])(results), *failed_sections(results)]


def page(results: dict[str, Any], there: str | None) -> str:
    made = sections(results)
    if there is None:
        return markdown_page(results["study"]["title"], made)
    return replace_blocks(there, made, name=f"{results['study']['name']}.md")


def keep(folder: Path, findings: Path = FINDINGS, name: str | None = None) -> Path:
    """Update the page `name`, by default that with the name of the study."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    name = results["study"]["name"] if name is None else name
    target = findings / f"{name}.md"
    text = page(results, target.read_text("utf-8") if target.exists() else None)
    (findings / "results").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "results.json", findings / "results" / f"{name}.json")
    for old in (findings / "figures").glob(f"{name}-*.svg"):
        old.unlink()
    for section in sections(results):
        for figure in section.figures:
            replace_file(findings / "figures" / f"{figure.name}.svg", f"{figure.drawing}\n")
    replace_file(target, text)
    return target


if __name__ == "__main__":
    print(keep(Path(sys.argv[1]), name=sys.argv[2] if len(sys.argv) > 2 else None))
