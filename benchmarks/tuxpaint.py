"""Compare all objectives on the Tux Paint stamps, from raw media, and write the tables of the page.

python -m benchmarks.tuxpaint          prepares, embeds, compares (about 25 minutes on two cores; continues if repeated)
python -m benchmarks.tuxpaint table    writes only the tables

It runs the commands of the page in `runs/tuxpaint`, with the stamps of an installed package.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pages import RESULTS, ROOT, measure_and_write
from unialign import Space
from unialign.config import CLOSED_FORMS, CompareConfig
from unialign.data import EmbeddingStore
from unialign.io import describe_environment
from unialign.metrics import add_seed_variance, percentile_interval, resample_weights, retrieval, weighted_mean

PAGE = ROOT / "docs" / "findings" / "tuxpaint.md"
FOLDER = ROOT / "runs" / "tuxpaint"
SPEECH = ("speech_fr", "speech_es", "speech_ca", "speech_bg", "speech_ro", "speech_ru")
# Name of a comparison -> modalities. The last one adds a modality that 14 % of the items have.
COMPARISONS = {
    "three": ("text", "image", "speech_fr"),
    "eight": ("text", "image", *SPEECH),
    "nine": ("text", "image", *SPEECH, "sound"),
}
K = 10
RESAMPLES = 2000


def commands() -> list[str]:
    """Return the shell commands that the page shows."""
    page = PAGE.read_text("utf-8")
    block = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert block is not None
    joined = block[1].replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip().startswith("unialign ")]


def measure() -> dict[str, Any]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for command in commands():
        subprocess.run(command, shell=True, check=True, cwd=FOLDER)
    store = EmbeddingStore.open(FOLDER / "stamps-store")
    rows = store.rows("test")
    weights_RN = resample_weights(torch.as_tensor(store.groups[rows]), resamples=RESAMPLES)
    found = {name: compare_directions(store, FOLDER / "runs" / name, weights_RN) for name in COMPARISONS}
    means = {name: {key: mean_direction(found[name][key]) for key in found[name]} for name in ("eight", "nine")}
    return {
        "split": "test",
        "data": {
            "name": store.name,
            "fingerprint": store.fingerprint,
            "items": store.items,
            "test_items": len(rows),
            "present": {name: int(store.present(name)[rows].sum()) for name in store.columns},
        },
        "commands": [" ".join(command.split()) for command in commands()],
        "comparisons": {
            name: {
                key: {
                    "label": entry["label"],
                    "directions": {
                        direction: {**summarize(x["points"], x["values"]), "queries": x["queries"]}
                        for direction, x in entry["directions"].items()
                    },
                }
                for key, entry in entries.items()
            }
            for name, entries in found.items()
        },
        "mean": {name: {key: summarize(*pair) for key, pair in entries.items()} for name, entries in means.items()},
        "difference": {
            key: summarize(*(with_ - without for with_, without in zip(means["nine"][key], pair, strict=True)))
            for key, pair in means["eight"].items()
            if key in means["nine"]
        },
        "environment": describe_environment(),
    }


def compare_directions(store: EmbeddingStore, folder: Path, weights_RN: Tensor) -> dict[str, dict[str, Any]]:
    """Return, for each entry, R@10 of each direction: (S,) points and (S, R) resampled values of the S seeds."""
    config = CompareConfig.read(folder / "config.yaml")
    found: dict[str, dict[str, Any]] = {}
    for key, entry in config.entries.items():
        spaces = (Space.from_pretrained(folder / "runs" / f"{key}-seed{seed}" / "space") for seed in config.seeds)
        by_seed = [direction_hits(store, space) for space in spaces]
        directions = {}
        for name, (_, places) in by_seed[0].items():
            hits_SQ = torch.stack([hits[name][0] for hits in by_seed])
            values_SR = torch.stack([weighted_mean(hits_Q, weights_RN[:, places]) for hits_Q in hits_SQ])
            directions[name] = {"points": hits_SQ.mean(1), "values": values_SR, "queries": len(places)}
        found[key] = {"label": entry.label, "directions": directions}
    return found


def direction_hits(store: EmbeddingStore, space: Space, split: str = "test") -> dict[str, tuple[Tensor, Any]]:
    """Return the hits at 10 of each direction, and the places of its queries among the items of the split.

    The gallery of a direction holds all items that have its target; items with equal captions have equal ids.
    """
    rows = store.rows(split)
    ids = store.ids[rows]
    present = {name: store.present(name)[rows] for name in space.modalities}
    features = {name: torch.as_tensor(store.array(name)[rows]).float() for name in space.modalities}
    z = space.encode(features, present=present)
    found = {}
    for target in space.modalities:
        sources = [name for name in space.modalities if name != target]
        total = torch.stack([z[name] for name in sources]).sum(0)
        queries = {name: (z[name], present[name]) for name in sources}
        queries["+".join(sources)] = (total, total.norm(dim=1).gt(0).numpy())
        gallery = present[target]
        for name, (rows_ND, has_N) in queries.items():
            chosen = has_N & gallery
            result = retrieval(
                rows_ND[chosen], z[target][gallery], query_ids=ids[chosen], gallery_ids=ids[gallery], k=(K,)
            )
            found[f"{name}->{target}"] = (result.hits(K).double(), np.flatnonzero(chosen))
    return found


def summarize(points_S: Tensor, values_SR: Tensor) -> dict[str, float]:
    """Return the mean over seeds with a 95 % interval over groups of items and seeds."""
    interval = percentile_interval(add_seed_variance(values_SR, points_S), 0.95)
    return {"mean": float(points_S.mean()), "low": interval.low, "high": interval.high}


def mean_direction(entry: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return points and resampled values of the mean over all directions between the eight complete modalities."""
    names = COMPARISONS["eight"]
    found = [entry["directions"][f"{a}->{b}"] for a in names for b in names if a != b]
    return torch.stack([x["points"] for x in found]).mean(0), torch.stack([x["values"] for x in found]).mean(0)


def table(results: dict[str, Any]) -> str:
    three, eight = (results["comparisons"][name] for name in ("three", "eight"))
    others = {name: "+".join(x for x in COMPARISONS["eight"] if x != name) for name in ("text", "speech_fr")}
    columns = {
        "3: text to French speech": (three, "text->speech_fr"),
        "3: image to text": (three, "image->text"),
        "8: image to text": (eight, "image->text"),
        "8: French to Spanish speech": (eight, "speech_fr->speech_es"),
        "8: all others to text": (eight, f"{others['text']}->text"),
        "8: all others to French speech": (eight, f"{others['speech_fr']}->speech_fr"),
    }
    lines = [f"| R@10, % | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for key, entry in three.items():
        note = " (closed form)" if key in CLOSED_FORMS else ""
        # Triangle supports exactly three modalities.
        cells = [_cell(found[key]["directions"][name]) if key in found else "" for found, name in columns.values()]
        lines.append(f"| {entry['label']}{note} | {' | '.join(cells)} |")
    lines += [
        "",
        "| mean R@10 over 56 directions, % | without sounds | with sounds | difference |",
        "|---|---|---|---|",
    ]
    for key in results["difference"]:
        found = [results["mean"]["eight"][key], results["mean"]["nine"][key], results["difference"][key]]
        lines.append(f"| {eight[key]['label']} | {' | '.join(map(_cell, found))} |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * found[name] for name in ("mean", "low", "high")))


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["table"]):
        raise SystemExit(__doc__)
    measure_and_write(RESULTS / "tuxpaint.json", measure, {PAGE: table})
