"""Compute the closed forms on `emoji` and `digits`, and write the table of the page on closed forms.

python -m benchmarks.closed_forms         about 3 minutes on one core
python -m benchmarks.closed_forms table   writes only the table
"""

import time
from typing import Any

import numpy as np

from benchmarks.pages import RESULTS, ROOT, measure_and_write
from unialign.closed_form import gcca, ridge
from unialign.data import load_dataset
from unialign.evaluation import evaluate
from unialign.io import describe_environment

PAGE = ROOT / "docs" / "concepts" / "closed-forms.md"
DATA = ("emoji", "digits")
METHODS: dict[str, Any] = {
    "Ridge": ridge,
    "GCCA": lambda store: gcca(store, kernel="linear"),
    "Kernel GCCA": lambda store: gcca(store, kernel="rbf"),
}
METRICS = ("recall@1", "joint_recall@1", "label_map")


def measure() -> dict[str, Any]:
    results: dict[str, Any] = {"split": "test", "data": {}, "values": {}}
    for name in DATA:
        store = load_dataset(name)
        results["data"][name] = {"fingerprint": store.fingerprint, "items": len(store.rows("test"))}
        groups_N = np.array(store.groups[store.rows("test")])
        for method, compute in METHODS.items():
            began = time.process_time()
            space = compute(store)
            seconds = time.process_time() - began
            found = evaluate(store, space)
            intervals = {metric: found.interval(metric, groups=groups_N) for metric in METRICS}
            results["values"][f"{name}/{method}"] = {
                **{metric: [i.estimate, i.low, i.high] for metric, i in intervals.items()},
                "cpu_seconds": round(seconds, 1),
                **{key: space.metadata["closed_form"].get(key) for key in ("regularization", "spectrum_power")},
            }
            print(name, method, results["values"][f"{name}/{method}"], flush=True)
    return results | {"environment": describe_environment()}


def table(results: dict[str, Any]) -> str:
    lines = ["| data | method | R@1 | joint R@1 | label mAP | CPU time |", "|---|---|---|---|---|---|"]
    for key, values in results["values"].items():
        name, method = key.split("/")
        cells = " | ".join("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in values[m])) for m in METRICS)
        lines.append(f"| {name} | {method} | {cells} | {values['cpu_seconds']:.0f} s |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    measure_and_write(RESULTS / "closed_forms.json", measure, {PAGE: table})
