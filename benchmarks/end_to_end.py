"""Train encoders from random weights on the files of Tux Paint, and write the table of the page.

python -m benchmarks.end_to_end                      10 trainings (about 12 CPU minutes; continues if repeated)
python -m benchmarks.end_to_end OBJECTIVE SEED ...   only these trainings
python -m benchmarks.end_to_end table                only the table

The pictures, English captions and French recordings come from an installed package. No weights are pretrained: `conv`,
`bag` and `logmel-conv` start from random weights, and are trained together with linear heads. Epochs and dropout were
chosen with UniAlign on a fold of the training and validation items.

Shapes: `Q` queries, `R` resamples, `S` seeds.
"""

import json
import sys
import time
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, measure_and_write
from benchmarks.tuxpaint import RESAMPLES, K, summarize
from unialign.io import describe_environment
from unialign.items import Items
from unialign.metrics import resample_weights, retrieval, weighted_mean
from unialign.named_data import prepare

PAGE = ROOT / "docs" / "findings" / "from_scratch.md"
FOLDER = ROOT / "runs" / "end_to_end"
ENCODERS = {"image": "builtin:conv", "text": "builtin:bag", "speech_fr": "builtin:logmel-conv"}
NAMES = {"image": "image", "text": "text", "speech_fr": "speech"}
OBJECTIVES = {"unialign": "UniAlign", "infonce": "InfoNCE"}
SEEDS = (0, 1, 2, 3, 4)
LR = 1e-3
TEST = 2


def data() -> Items:
    return prepare("tuxpaint").select(list(ENCODERS))


def config(objective: str, seed: int) -> ua.TrainConfig:
    return ua.TrainConfig(
        objective=objective,
        dim=128,
        head="linear",
        dropout=0.5,
        epochs=20,
        batch_size=64,
        lr=LR,
        encoders={name: f"{encoder}?seed={seed}" for name, encoder in ENCODERS.items()},
        # The weights are not pretrained, so their learning rate is that of the heads.
        tune={name: {"mode": "all", "lr": LR} for name in ENCODERS},
        monitor_steps=10,
        seed=seed,
    )


def train(items: Items, objective: str, seed: int) -> dict[str, Any]:
    """Train, and return the hits of each query of each direction; a finished training is read."""
    folder = FOLDER / f"{objective}-seed{seed}"
    path = folder / "hits.json"
    if not path.exists():
        started = time.process_time()
        space = ua.fit(items, config(objective, seed), out=folder, resume="auto", device="cpu", progress="lines").space
        seconds = time.process_time() - started
        path.write_text(json.dumps({"seconds": seconds, "directions": direction_hits(items, space, TEST)}), "utf-8")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    health = [record["health"] for record in records if "health" in record]
    return found | {"cosines": [{name: x[f"cosine/{name}"] for name in ENCODERS} for x in health]}


def direction_hits(items: Items, space: ua.Space, split: int) -> dict[str, list[float]]:
    """Encode the files of a split. The gallery of a direction holds all items of the split that have its target."""
    rows = np.flatnonzero(items.split == split)
    z = space.encode({name: [media(items, row, name) for row in rows] for name in ENCODERS})
    ids = items.ids[rows]
    found = {}
    for source, target in directions():
        gallery = items.present(target)[rows]
        chosen = gallery & items.present(source)[rows]
        result = retrieval(
            z[source][chosen], z[target][gallery], query_ids=ids[chosen], gallery_ids=ids[gallery], k=(K,)
        )
        found[f"{source}->{target}"] = result.hits(K).double().tolist()
    return found


def directions() -> list[tuple[str, str]]:
    return [(source, target) for source in ENCODERS for target in ENCODERS if source != target]


def media(items: Items, row: int, name: str) -> str | Path | None:
    cell = items.cell(row, name)
    if cell is None:
        return None
    return str(cell.value) if cell.path is None else items.roots[cell.root] / cell.path


def chance(items: Items, source: str, target: str) -> float:
    """Return the probability that one of ten random items of the gallery is correct, as a mean over the queries."""
    rows = np.flatnonzero(items.split == TEST)
    ids, gallery = items.ids[rows], items.present(target)[rows]
    number = int(gallery.sum())
    values = []
    for query in ids[gallery & items.present(source)[rows]]:
        correct = int((ids[gallery] == query).sum())
        values.append(1 - comb(number - correct, K) / comb(number, K))
    return float(np.mean(values))


def measure() -> dict[str, Any]:
    items = data()
    rows = np.flatnonzero(items.split == TEST)
    runs = {key: [train(items, key, seed) for seed in SEEDS] for key in OBJECTIVES}
    weights_RN = resample_weights(torch.as_tensor(items.groups[rows]), resamples=RESAMPLES)
    scores: dict[str, dict[str, Any]] = {key: {} for key in OBJECTIVES}
    for source, target in directions():
        places = np.flatnonzero((items.present(source) & items.present(target))[rows])
        for key, own in runs.items():
            hits_SQ = torch.tensor([run["directions"][f"{source}->{target}"] for run in own], dtype=torch.float64)
            values_SR = torch.stack([weighted_mean(hits_Q, weights_RN[:, places]) for hits_Q in hits_SQ])
            scores[key][f"{source}->{target}"] = hits_SQ.mean(1), values_SR
    means = {
        key: tuple(torch.stack([x[part] for x in own.values()]).mean(0) for part in (0, 1))
        for key, own in scores.items()
    }
    pairs = {name: (scores["unialign"][name], scores["infonce"][name]) for name in scores["unialign"]}
    pairs["mean"] = means["unialign"], means["infonce"]
    return {
        "split": "test",
        "data": {
            "name": items.name,
            "fingerprint": items.fingerprint,
            "items": len(items),
            "test_items": len(rows),
            "present": {name: int(items.present(name)[rows].sum()) for name in ENCODERS},
        },
        "config": config("unialign", 0).to_dict() | {"objective": list(OBJECTIVES), "seed": list(SEEDS)},
        "chance": {f"{source}->{target}": chance(items, source, target) for source, target in directions()},
        "objectives": {
            key: {
                "label": OBJECTIVES[key],
                "directions": {name: summarize(*x) for name, x in own.items()} | {"mean": summarize(*means[key])},
                "seeds": {name: x[0].tolist() for name, x in own.items()},
                "largest_mean_cosine": max(max(x.values()) for run in runs[key] for x in run["cosines"]),
            }
            for key, own in scores.items()
        },
        "difference": {name: summarize(a[0] - b[0], a[1] - b[1]) for name, (a, b) in pairs.items()},
        "environment": describe_environment(),
    }


def table(results: dict[str, Any]) -> str:
    names = [*results["chance"], "mean"]
    chances = results["chance"] | {"mean": float(np.mean(list(results["chance"].values())))}
    lines = [
        f"| R@{K}, % | chance | {' | '.join(OBJECTIVES.values())} | difference |",
        f"|---|---|{'---|' * len(OBJECTIVES)}---|",
    ]
    for name in names:
        label = "mean" if name == "mean" else " to ".join(NAMES[part] for part in name.split("->"))
        cells = [_cell(results["objectives"][key]["directions"][name]) for key in OBJECTIVES]
        difference = _cell(results["difference"][name], sign="+")
        lines.append(f"| {label} | {100 * chances[name]:.1f} | {' | '.join(cells)} | {difference} |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float], *, sign: str = "") -> str:
    mean, low, high = (f"{100 * found[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] in ([], ["table"]):
        measure_and_write(RESULTS / "end_to_end.json", measure, {PAGE: table})
    elif len(sys.argv) >= 3 and sys.argv[1] in OBJECTIVES:
        table_of_items = data()
        for chosen in sys.argv[2:]:
            train(table_of_items, sys.argv[1], int(chosen))
    else:
        raise SystemExit(__doc__)
