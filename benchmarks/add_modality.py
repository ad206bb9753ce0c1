"""Add Spanish speech to a space of Tux Paint stamps, and replace the image encoder of a space of emoji.

python -m benchmarks.add_modality          measures (about 15 minutes on one core) and writes the tables
python -m benchmarks.add_modality table    writes only the tables

The stamps are embedded as for `benchmarks.tuxpaint`, in `runs/tuxpaint`. The images of the emoji are embedded by
`benchmarks.bridge_data` with EfficientNet-Lite0 and Lite2, in `runs/add-modality`.
"""

import io
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pages import RESULTS, ROOT, measure_and_write
from benchmarks.tuxpaint import FOLDER as STAMPS, RESAMPLES, K, commands, direction_hits, summarize
from unialign import Space, replace_encoder
from unialign.data import EmbeddingStore, load_dataset
from unialign.io import describe_environment
from unialign.metrics import resample_weights, retrieval, weighted_mean
from unialign.train import HealthWarning, TrainConfig, fit

PAGE = ROOT / "docs" / "how-to" / "add-a-modality.md"
FOLDER = ROOT / "runs" / "add-modality"
SEEDS = range(5)
OLD, NEW = ("text", "image", "speech_fr"), "speech_es"
# The space before is that of the page of Tux Paint.
BASE: dict[str, Any] = {"objective": "infonce", "head": "kernel", "init": "gcca", "dim": 256, "epochs": 10}
# Ways to train the head of the new modality; one of them is chosen by R@10 on validation items.
CANDIDATES: dict[str, dict[str, Any]] = {
    "ridge": {"head": "linear", "init": "ridge", "epochs": 0},
    "ridge, then 10 epochs of InfoNCE": {"head": "linear", "init": "ridge", "epochs": 10, "lr": 3e-4},
    "kernel head, 30 epochs of InfoNCE": {"head": "kernel", "epochs": 30, "lr": 3e-3},
    "kernel head, 100 epochs of InfoNCE": {"head": "kernel", "epochs": 100, "lr": 3e-3},
}
DIRECTIONS = ("text->speech_es", "speech_es->text", "image->speech_es", "speech_fr->speech_es", "text->speech_fr")
# Emoji with features of both encoders, held-out queries, and the training and validation items of the space. The index
# holds all emoji that the space was not trained on.
PAIRS, QUERIES, FITTED = (240, 580), 400, (465, 100)


def train(store: EmbeddingStore, modalities: tuple[str, ...], settings: dict[str, Any], **options: Any) -> Space:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        config = TrainConfig(dim=BASE["dim"], modalities=modalities, objective="infonce").override(settings)
        return fit(store, config, device="cpu", progress="none", **options).space


def measure_addition() -> dict[str, Any]:
    if not (STAMPS / "stamps-store" / "store.json").is_file():
        STAMPS.mkdir(parents=True, exist_ok=True)
        for command in commands()[:3]:
            subprocess.run(command, shell=True, check=True, cwd=STAMPS)
    store = EmbeddingStore.open(STAMPS / "stamps-store")
    bases = {seed: train(store, OLD, BASE | {"seed": seed}) for seed in SEEDS}
    added = {
        name: {seed: add_speech(store, bases[seed], settings, seed) for seed in SEEDS}
        for name, settings in CANDIDATES.items()
    }
    scores = {name: validation_score(store, spaces) for name, spaces in added.items()}
    chosen = max(scores, key=scores.__getitem__)
    joint = {seed: train(store, (*OLD, NEW), BASE | {"seed": seed}) for seed in SEEDS}
    found = {"added": hits_of(store, added[chosen]), "together": hits_of(store, joint)}
    before = hits_of(store, bases)
    differences = {
        name: summarize(*(a - b for a, b in zip(found["added"][name], found["together"][name], strict=True)))
        for name in DIRECTIONS
    }
    return {
        "split": "test",
        "data": {"name": store.name, "fingerprint": store.fingerprint, "test_items": len(store.rows("test"))},
        "base": BASE,
        "candidates": CANDIDATES,
        "validation_recall": scores,
        "chosen": chosen,
        "directions": {kind: {name: summarize(*found[kind][name]) for name in DIRECTIONS} for kind in found},
        "before": {name: summarize(*before[name]) for name in ("text->speech_fr",)},
        "difference": differences,
        "bitwise_equal": all(check_old(store, bases[seed], added[chosen][seed], seed) for seed in SEEDS),
        "files": sorted(
            path.relative_to(FOLDER / "space-0").as_posix()
            for path in (FOLDER / "space-0").rglob("*")
            if path.is_file()
        ),
    }


def add_speech(store: EmbeddingStore, base: Space, settings: dict[str, Any], seed: int) -> Space:
    return train(store, (*OLD, NEW), {**settings, "seed": seed}, init_from=base, train=[NEW])


def validation_score(store: EmbeddingStore, spaces: dict[int, Space]) -> float:
    """Mean R@10 between text and the new modality in both directions, on validation items."""
    names = (f"text->{NEW}", f"{NEW}->text")
    found = [direction_hits(store, space, "val") for space in spaces.values()]
    return float(np.mean([float(hits[name][0].mean()) for hits in found for name in names]))


def hits_of(store: EmbeddingStore, spaces: dict[int, Space]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, for each direction, R@10 of the seeds (S,) and its resampled values (S, R) over groups of test items."""
    weights_RN = resample_weights(torch.as_tensor(store.groups[store.rows("test")]), resamples=RESAMPLES)
    by_seed = [direction_hits(store, space) for space in spaces.values()]
    found = {}
    for name in DIRECTIONS:
        if name in by_seed[0]:
            points_S = torch.stack([hits[name][0].mean() for hits in by_seed])
            values = [weighted_mean(hits[name][0], weights_RN[:, hits[name][1]]) for hits in by_seed]
            found[name] = points_S, torch.stack(values)
    return found


def check_old(store: EmbeddingStore, base: Space, space: Space, seed: int) -> bool:
    """Save the space, load it, and compare the embeddings of the old modalities of all items."""
    folder = FOLDER / f"space-{seed}"
    space.save_pretrained(folder)
    loaded = Space.from_pretrained(folder)
    features = {name: store.array(name) for name in OLD}
    present = {name: store.present(name) for name in OLD}
    before, after = base.encode(features, present=present), loaded.encode(features, present=present)
    return all(torch.equal(before[name], after[name]) for name in OLD)


def measure_replacement() -> dict[str, Any]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for encoder in ("lite0", "lite2"):
        if not (FOLDER / f"{encoder}.npy").is_file():
            subprocess.run([sys.executable, "-m", "benchmarks.bridge_data", encoder, str(FOLDER)], check=True, cwd=ROOT)
    emoji = load_dataset("emoji")
    x = {encoder: emoji_features(emoji, encoder) for encoder in ("lite0", "lite2")}
    runs = [replace_once(np.asarray(emoji.array("text")), x, seed) for seed in SEEDS]
    weights_RQ = resample_weights(torch.arange(QUERIES), resamples=RESAMPLES)
    systems = {
        name: {
            task: summarize(
                torch.stack([run["hits"][name][task].mean() for run in runs]),
                torch.stack([weighted_mean(run["hits"][name][task], weights_RQ) for run in runs]),
            )
            for task in runs[0]["hits"][name]
        }
        for name in runs[0]["hits"]
    }
    estimates = {
        pairs: [{key: run["overlaps"][pairs][key] for key in ("estimate", "low", "high", "truth")} for run in runs]
        for pairs in PAIRS
    }
    return {
        "index": emoji.items - sum(FITTED),
        "fitted": FITTED,
        "queries": QUERIES,
        "systems": systems,
        "estimates": {str(pairs): found for pairs, found in estimates.items()},
        "covered": sum(one["low"] <= one["truth"] <= one["high"] for found in estimates.values() for one in found),
        "intervals": len(PAIRS) * len(SEEDS),
    }


def emoji_features(emoji: EmbeddingStore, encoder: str) -> dict[str, Any]:
    """Return the features of both drawings, in the order of the items."""
    asset: Any = emoji.asset("thumbnails.zip")
    names = zipfile.ZipFile(io.BytesIO(asset) if isinstance(asset, bytes) else asset).namelist()
    rows = np.load(FOLDER / f"{encoder}.npy")
    found = {}
    for kind in ("image", "drawing"):
        place = {int(Path(name).stem): i for i, name in enumerate(names) if name.startswith(kind)}
        found[kind] = rows[[place[item] for item in range(emoji.items)]]
    return found


def replace_once(text: Any, x: dict[str, dict[str, Any]], seed: int) -> dict[str, Any]:
    """Search an index of old image vectors, which the space was not trained on, with second drawings and with texts."""
    order = np.random.default_rng(seed).permutation(len(text))
    fitted, index = order[: sum(FITTED)], order[sum(FITTED) :]
    queries, others = np.arange(QUERIES), np.arange(QUERIES, len(index))
    split = ["train"] * FITTED[0] + ["val"] * FITTED[1]
    old = EmbeddingStore.from_arrays({"image": x["lite0"]["image"][fitted], "text": text[fitted]}, split=split)
    base = train(old, ("image", "text"), BASE | {"seed": seed})
    index_ND = base.encode({"image": x["lite0"]["image"][index]})["image"]

    def hits(space: Space, encoder: str, gallery_ND: Tensor = index_ND) -> dict[str, Tensor]:
        query_QD = space.encode({"image": x[encoder]["drawing"][index[queries]]})["image"]
        ids = {"query_ids": queries, "gallery_ids": np.arange(len(index)), "k": (K,)}
        texts_ND = space.encode({"text": text[index]})["text"]
        found = {"index": retrieval(query_QD, gallery_ND, **ids), "text": retrieval(query_QD, texts_ND, **ids)}
        return {task: result.hits(K).double() for task, result in found.items()}

    again = EmbeddingStore.from_arrays({"image": x["lite2"]["image"][fitted], "text": text[fitted]}, split=split)
    retrained = train(again, ("image", "text"), BASE | {"seed": seed})
    found = {
        "old encoder": hits(base, "lite0"),
        "new encoder, trained anew, index embedded again": hits(
            retrained, "lite2", retrained.encode({"image": x["lite2"]["image"][index]})["image"]
        ),
    }
    overlaps = {}
    for pairs in PAIRS:
        rows = index[others[:pairs]]
        columns = {"image": x["lite2"]["image"][rows], "text": text[rows]}
        store = EmbeddingStore.from_arrays(columns, split=["train"] * pairs)
        settings = CANDIDATES["ridge"] | {"seed": seed}
        anew = train(store, ("image", "text"), settings, init_from=base, train=["image"])
        found[f"new head fitted to {pairs:,} texts"] = hits(anew, "lite2")
        replaced = replace_encoder(base, "image", old=x["lite0"]["image"][rows], new=columns["image"], items=len(index))
        found[f"replace_encoder, {pairs:,} items"] = hits(replaced.space, "lite2")
        new_QD = replaced.space.encode({"image": x["lite2"]["image"][index[queries]]})["image"]
        overlaps[pairs] = {**replaced.overlap.to_dict(), "truth": true_overlap(index_ND, new_QD, queries)}
    return {"hits": found, "overlaps": overlaps}


def true_overlap(index_ND: Tensor, query_QD: Tensor, rows_Q: Any) -> float:
    """Overlap@10 of the rankings of the index by old and new embeddings of the same items, without the item itself."""
    firsts = []
    for z_QD in (index_ND[rows_Q], query_QD):
        scores_QN = z_QD @ index_ND.T
        scores_QN[torch.arange(len(rows_Q)), torch.as_tensor(rows_Q)] = -torch.inf
        firsts.append(scores_QN.topk(K).indices)
    return float((firsts[0][:, :, None] == firsts[1][:, None, :]).any(2).double().mean())


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {"addition": measure_addition(), "replacement": measure_replacement(), "environment": describe_environment()}


def table(results: dict[str, Any]) -> str:
    added, replaced = results["addition"], results["replacement"]
    names = {"added": "added to the trained space", "together": "all four modalities trained together"}
    head = ["text to Spanish", "Spanish to text", "image to Spanish", "French to Spanish", "text to French"]
    lines = [f"| R@10, % | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for kind, label in names.items():
        lines.append(f"| {label} | {' | '.join(cell(added['directions'][kind][name]) for name in DIRECTIONS)} |")
    lines.append(f"| difference | {' | '.join(cell(added['difference'][name]) for name in DIRECTIONS)} |")
    lines += ["", "| queries | R@10 in the old index, % | R@10 of texts, % | overlap@10, % | expected, % |"]
    lines.append("|---|---|---|---|---|")
    for name, tasks in replaced["systems"].items():
        pairs = "".join(filter(str.isdigit, name))
        found = replaced["estimates"].get(pairs) if name.startswith("replace") else None
        overlap = expected = ""
        if found is not None:
            overlap, low, estimate, high = (
                f"{100 * np.mean([one[key] for one in found]):.0f}" for key in ("truth", "low", "estimate", "high")
            )
            expected = f"{estimate} [{low}, {high}]"
        lines.append(f"| {name} | {cell(tasks['index'])} | {cell(tasks['text'])} | {overlap} | {expected} |")
    return "\n".join(lines) + "\n"


def cell(found: dict[str, float]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * found[name] for name in ("mean", "low", "high")))


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["table"]):
        raise SystemExit(__doc__)
    measure_and_write(RESULTS / "add_modality.json", measure, {PAGE: table})
