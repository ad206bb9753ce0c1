"""Compute the closed forms on the training data of the study `missing`, and write their table on its page.

python -m benchmarks.closed_forms_missing         about 10 minutes on one core; finished conditions are kept
python -m benchmarks.closed_forms_missing table   writes only the table

The settings of the closed forms are chosen on the validation split, which is complete.
"""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from benchmarks.tune import closed_form_space
from research._estimates import seed_interval
from research._transforms import transformed
from research.missing import MODALITIES, PAIRS, conditions
from unialign.config import CLOSED_FORMS
from unialign.data import load_dataset
from unialign.evaluation import evaluate
from unialign.io import describe_environment

RESULT, PAGE = RESULTS / "closed_forms_missing.json", ROOT / "docs" / "findings" / "missing.md"
STUDY = ROOT / "docs" / "findings" / "results" / "missing.json"
SEEDS = (0, 1, 2, 3, 4)
FORMS = ("gcca", "kernel_gcca", "ridge")
METRICS = {"recall@1": "R@1, %", "joint_recall@1": "joint R@1, %", "label_map": "label mAP, %"}
# The trained arm with the highest joint R@1 on complete data.
TRAINED = "infonce-all"


def measure(form: str, condition: str, seed: int) -> dict[str, Any]:
    store = transformed(load_dataset("emoji").select(MODALITIES), conditions()[condition], seed)
    space = closed_form_space(form, store)
    found = evaluate(store, space)
    directions = [f"{a}->{b}" for a, b in itertools.permutations(MODALITIES, 2)]
    return {
        "form": form,
        "condition": condition,
        "seed": seed,
        "metrics": {name: found.metrics[name] for name in METRICS},
        "directions": {name: {"recall@1": found.directions[name]["recall@1"]} for name in directions},
        **{key: space.metadata["closed_form"].get(key) for key in ("regularization", "spectrum_power")},
    }


def trained_runs() -> list[dict[str, Any]]:
    """The runs of the study have the same test items and, per seed, the same training entries."""
    study = json.loads(STUDY.read_text("utf-8"))
    return [
        {**run, "form": TRAINED, "condition": run["objective"].removeprefix(f"{TRAINED}-")}
        for run in study["runs"]
        if run["objective"].startswith(f"{TRAINED}-")
    ]


def value(run: Mapping[str, Any], metric: str) -> float:
    """A metric is a name, or a pair of modalities whose R@1 is averaged over both directions."""
    if metric in PAIRS:
        a, b = PAIRS[metric]
        return sum(float(run["directions"][name]["recall@1"]) for name in (f"{a}->{b}", f"{b}->{a}")) / 2
    return float(run["metrics"][metric])


def values(runs: Sequence[Mapping[str, Any]], form: str, condition: str, metric: str) -> list[float]:
    found = {run["seed"]: value(run, metric) for run in runs if (run["form"], run["condition"]) == (form, condition)}
    return [100 * found[seed] for seed in SEEDS]


def table(results: Mapping[str, Any], trained: Sequence[Mapping[str, Any]]) -> str:
    runs = [*results["runs"], *trained]
    lines = [
        f"| training data | entry | {' | '.join(METRICS.values())} | R@1 of the pair, % |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for condition in conditions():
        kind, _, pair = condition.partition("-")
        never = f"no {' with '.join(PAIRS[pair])}" if kind == "never" else f"{condition.removeprefix('drop')} % dropped"
        for form in (TRAINED, *FORMS):
            label = "InfoNCE, all pairs" if form == TRAINED else CLOSED_FORMS[form].label
            cells = [cell(runs, form, condition, metric) for metric in METRICS]
            cells.append(cell(runs, form, condition, pair) if pair else "")
            title = "complete data" if condition == "drop0" else never
            lines.append(f"| {title} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(runs: Sequence[Mapping[str, Any]], form: str, condition: str, metric: str) -> str:
    """Return the mean over seeds and, for closed forms, the difference from the trained arm, paired by seed."""
    own = values(runs, form, condition, metric)
    mean = f"{sum(own) / len(own):.1f}"
    if form == TRAINED:
        return mean
    other = values(runs, TRAINED, condition, metric)
    difference = seed_interval([a - b for a, b in zip(own, other, strict=True)])
    return f"{mean} ({difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}])"


def main() -> None:
    torch.set_num_threads(1)
    stored = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"runs": []}
    runs = list(stored["runs"])
    done = {(run["form"], run["condition"], run["seed"]) for run in runs}
    for seed, condition, form in itertools.product(SEEDS, conditions(), FORMS):
        if sys.argv[1:] == ["table"] or (form, condition, seed) in done:
            continue
        # Nothing is dropped from complete data, and closed forms do not depend on a seed.
        same = [run for run in runs if condition == "drop0" and run["form"] == form and run["condition"] == condition]
        runs.append({**same[0], "seed": seed} if same else measure(form, condition, seed))
        write_results(RESULT, {"schema": 1, "environment": describe_environment(), "seeds": SEEDS, "runs": runs})
        print(seed, condition, form, runs[-1]["metrics"], flush=True)
    write_block(PAGE, RESULT, table({"runs": runs}, trained_runs()))


if __name__ == "__main__":
    main()
