"""Train with each choice of the anchor on `digits`, and write the table of the page on anchors.

python -m benchmarks.anchors         about 5 minutes on one core
python -m benchmarks.anchors table   writes only the table
"""

import warnings
from typing import Any

from benchmarks.pages import RESULTS, ROOT, measure_and_write
from unialign import TrainConfig, fit
from unialign.data import load_dataset
from unialign.evaluation import evaluate
from unialign.io import describe_environment

PAGE = ROOT / "docs" / "how-to" / "anchor-and-temperature.md"
OBJECTIVES = {"unialign": "UniAlign", "infonce": "InfoNCE"}
ANCHORS = ("fou", "pix", "all")
SEEDS = (0, 1, 2)
EPOCHS = 30


def measure() -> dict[str, Any]:
    warnings.simplefilter("ignore")
    store, values = load_dataset("digits"), {}
    for objective in OBJECTIVES:
        for anchor in ANCHORS:
            config = TrainConfig(objective=objective, objective_options={"anchor": anchor}, epochs=EPOCHS)
            spaces = (fit(store, config.replace(seed=seed), progress="none").space for seed in SEEDS)
            found = [evaluate(store, space, split="val").metrics for space in spaces]
            names = ("recall@1", "joint_recall@1")
            values[f"{objective}/{anchor}"] = {name: sum(f[name] for f in found) / len(found) for name in names}
            print(objective, anchor, values[f"{objective}/{anchor}"], flush=True)
    return {
        "data": {"name": "digits", "fingerprint": store.fingerprint, "split": "val"},
        "epochs": EPOCHS,
        "seeds": list(SEEDS),
        "values": values,
        "environment": describe_environment(),
    }


def table(results: dict[str, Any]) -> str:
    lines = ["| anchor | " + " | ".join(OBJECTIVES.values()) + " |", "|---|" + "---|" * len(OBJECTIVES)]
    for anchor in ANCHORS:
        cells = [results["values"][f"{objective}/{anchor}"] for objective in OBJECTIVES]
        shown = " | ".join(f"{100 * cell['recall@1']:.1f} / {100 * cell['joint_recall@1']:.1f}" for cell in cells)
        lines.append(f'| `"{anchor}"` | {shown} |')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    measure_and_write(RESULTS / "anchors.json", measure, {PAGE: table})
