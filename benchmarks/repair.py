"""Measure `ua.repair` on spaces without a gap, with planted gaps and with gaps of training.

`ua.repair` gets some of the items of a space, and every method is measured on the other items by mixed-pool retrieval
(balanced NDCG@10), as a mean over five random choices of the items.

    python -m benchmarks.repair --features FOLDER

FOLDER contains features (items, dim) as `.npy`: `minilm_names`, `minilm_summaries`, `wordllama_names` and
`wordllama_summaries` of the same packages, `minilm` and `wordllama` of other summaries, and `lite0` and `lite2` of the
emoji images. Without FOLDER, these spaces are omitted.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from unialign.correction import METHODS, ItemRows, measure_candidates
from unialign.data import EmbeddingStore, load_dataset, random_split
from unialign.io import describe_environment

RESULT, PAGE = RESULTS / "repair.json", ROOT / "docs" / "how-to" / "repair.md"
FIT, TEST, SEEDS = (100, 400), 300, range(5)
KINDS = {"healthy": "no gap", "planted": "planted gap", "trained": "gap of training"}


@dataclass(frozen=True)
class Embeddings:
    name: str
    kind: str
    z: dict[str, Tensor]
    labels: np.ndarray | None = None


def unit(x: Any) -> Tensor:
    return torch.nn.functional.normalize((x if isinstance(x, Tensor) else torch.from_numpy(x)).double(), dim=1)


def half_store(name: str) -> EmbeddingStore:
    """Half of the groups are for training, the others are the test split."""
    store = load_dataset(name)
    codes = random_split(store.items, groups=store.groups, fractions=(0.45, 0.05, 0.5))
    columns = {column: store.array(column) for column in store.modalities}
    present = {column: store.present(column) for column in store.modalities}
    options = {"present": present, "groups": store.groups, "labels": store.labels, "split": codes}
    return EmbeddingStore.from_arrays(columns, name=name, **options)


def unseen(name: str, kind: str, space: ua.Space, store: EmbeddingStore) -> Embeddings:
    rows = store.rows("test")
    z = space.encode({column: store.array(column)[rows] for column in space.modalities})
    return Embeddings(name, kind, {column: unit(x) for column, x in z.items()}, store.labels[rows])


def settings(objective: str, dropout: float, **options: Any) -> ua.TrainConfig:
    return ua.TrainConfig(
        objective=objective,
        objective_options=options,
        dim=128,
        head="linear",
        dropout=dropout,
        epochs=60,
        lr=0.002,
        weight_decay=0.05,
    )


def trained_spaces() -> Iterator[Embeddings]:
    stores = {name: half_store(name) for name in ("emoji", "digits")}
    for data, store in stores.items():
        objectives = {"UniAlign": {"anchor": "all", "temperature": 0.07, "alignment_weight": 0.5}}
        objectives["InfoNCE"] = {"anchor": "all", "temperature": 0.05}
        for label, options in objectives.items():
            space = ua.fit(store, settings(label.lower(), 0.3 if data == "emoji" else 0.0, **options)).space
            found = unseen(f"{data}, {label}", "healthy", space, store)
            yield found
            if (data, label) == ("emoji", "InfoNCE"):
                yield planted(found, scaled=False)
                yield planted(found, scaled=True)
        yield unseen(f"{data}, GCCA", "healthy", _linear_gcca(store), store)
    for modalities in (("image", "text"), None):
        yield cold_towers(stores["emoji"], modalities)


def _linear_gcca(store: EmbeddingStore) -> ua.Space:
    return ua.closed_form.gcca(store, kernel="linear", regularization=1e-3, spectrum_power=0.0)


def planted(space: Embeddings, *, scaled: bool) -> Embeddings:
    rng = np.random.default_rng(0)
    z: dict[str, Tensor] = {}
    for name, x in space.z.items():
        scales = rng.uniform(0.5, 1.5, x.shape[1])
        scales[rng.integers(x.shape[1])] = 3.0
        shift = rng.normal(size=x.shape[1])
        moved = unit(x * torch.from_numpy(scales)) if scaled else x
        z[name] = unit(moved + 1.2 * torch.from_numpy(shift / np.linalg.norm(shift)))
    return Embeddings(f"{space.name}, planted {'b' if scaled else 'a'}", "planted", z, space.labels)


def cold_towers(store: EmbeddingStore, modalities: tuple[str, ...] | None) -> Embeddings:
    """Heads whose last biases are random vectors, at temperature .01."""
    names = modalities or store.modalities
    config = ua.TrainConfig(
        objective="infonce", objective_options={"temperature": 0.01}, modalities=names, dim=128, dropout=0.3, epochs=40
    )
    torch.manual_seed(0)
    dims = {name: store.dim(name) for name in names}
    space = ua.Space(dims, dim=128, head="mlp", hidden=256, dropout=0.3)
    space.fit_normalizer(store.select(names), store.rows("train"))
    with torch.no_grad():
        for head in space.heads:
            bias = torch.randn(128)
            head[-1].bias.copy_(3 * bias / bias.norm())  # type: ignore[operator, union-attr]
    space = ua.fit(store.select(names), config, init_from=space).space
    return unseen(f"emoji, {len(names)} heads at temperature .01", "trained", space, store)


def feature_spaces(folder: Path) -> Iterator[Embeddings]:
    load = {path.stem: np.load(path, allow_pickle=False).astype(np.float64) for path in folder.glob("*.npy")}
    for model in ("minilm", "wordllama"):
        z = {part: unit(load[f"{model}_{part}"]) for part in ("names", "summaries")}
        yield Embeddings(f"names and summaries, {model}", "healthy", z)
    for old, new in (("wordllama", "minilm"), ("minilm", "wordllama"), ("lite0", "lite2"), ("lite2", "lite0")):
        yield mapped(f"{old} mapped to {new}", load[old], load[new])


def mapped(name: str, old: np.ndarray, new: np.ndarray) -> Embeddings:
    order = np.random.default_rng(0).permutation(len(old))[:3000]
    fit, rest = np.split(order, 2)
    x, y = unit(old).numpy(), unit(new).numpy()
    mean_x, mean_y = x[fit].mean(0), y[fit].mean(0)
    inputs = x[fit] - mean_x
    ridge = 0.01 * len(fit) * inputs.var() * np.eye(inputs.shape[1])
    weight = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (y[fit] - mean_y))
    return Embeddings(name, "healthy", {"mapped": unit((x[rest] - mean_x) @ weight + mean_y), "new": unit(y[rest])})


def measure(space: Embeddings, fit_items: int) -> dict[str, Any] | None:
    items = len(next(iter(space.z.values())))
    if items < fit_items + 100:
        return None
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    choices: dict[str, list[str]] = {"choice": [], "index_choice": []}
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(items)
        fit, test = np.sort(order[:fit_items]), np.sort(order[fit_items : fit_items + TEST])
        given = {name: x[fit] for name, x in space.z.items()}
        found = ua.repair(given, labels=None if space.labels is None else space.labels[fit], seed=seed)
        for key, chosen in choices.items():
            chosen.append(getattr(found, key))
        held = ItemRows(
            items_n=test,
            z={name: x[test] for name, x in space.z.items()},
            present={name: torch.ones(len(test), dtype=torch.bool) for name in space.z},
            ids_n=torch.from_numpy(test),
            labels_n=None if space.labels is None else space.labels[test],
        )
        measured = measure_candidates(METHODS, given, held, seed=seed)
        for method, candidate in measured.items():
            rows[method].append({key: candidate.mean(key, None, len(test)) for key in ("balanced", "own", "cross",
                                 "share", "label_precision")})  # fmt: skip
    return summarize(rows, choices)


def summarize(rows: Mapping[str, list[dict[str, float]]], choices: Mapping[str, list[str]]) -> dict[str, Any]:
    means = {
        method: {key: float(np.mean([run[key] for run in runs])) for key in runs[0] if not np.isnan(runs[0][key])}
        for method, runs in rows.items()
    }
    before = [run["balanced"] for run in rows["none"]]
    gains = {}
    for key, chosen in choices.items():
        after = [rows[method][seed]["balanced"] for seed, method in enumerate(chosen)]
        gain = np.subtract(after, before)
        gains[key] = {
            "methods": list(chosen),
            "balanced": float(np.mean(after)),
            "gain": float(gain.mean()),
            "worst_gain": float(gain.min()),
        }
        if "label_precision" in means["none"]:
            labels = [rows[m][i]["label_precision"] - rows["none"][i]["label_precision"] for i, m in enumerate(chosen)]
            gains[key]["label_gain"] = float(np.mean(labels))
    return {"methods": means, **gains}


def table(results: Mapping[str, Any]) -> str:
    head = ["space", "items", "none", "center", "coral", "center_csls", "chosen map", "chosen for an index"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for space in results["spaces"]:
        for items, found in space["fit_items"].items():
            before = found["methods"]["none"]["balanced"]
            gains = [100 * (found["methods"][m]["balanced"] - before) for m in METHODS[1:]]
            gains += [100 * found[key]["gain"] for key in ("choice", "index_choice")]
            cells = [f"{space['name']} ({KINDS[space['kind']]})", items, f"{100 * before:.1f}"]
            lines.append("| " + " | ".join([*cells, *(f"{gain:+.1f}" for gain in gains)]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, metavar="FOLDER")
    parser.add_argument("--only", choices=("features", "trained"), help="measure a part of the spaces")
    parser.add_argument("--out", type=Path, default=RESULT, help="spaces in this file are kept and not measured again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spaces = json.loads(options.out.read_text("utf-8"))["spaces"] if options.out.exists() else []
    features = feature_spaces(options.features) if options.features and options.only != "trained" else []
    for space in chain(features, trained_spaces() if options.only != "features" else []):
        if any(entry["name"] == space.name for entry in spaces):
            continue
        digest = hashlib.sha256()
        for x in space.z.values():
            digest.update(np.ascontiguousarray(x.float().numpy()).tobytes())
        found = {str(n): result for n in FIT if (result := measure(space, n)) is not None}
        gaps = [ua.geometry.modality_gap_debiased(a, b).item() for a, b in combinations(space.z.values(), 2)]
        entry = {"name": space.name, "kind": space.kind, "modalities": len(space.z), "gap": max(gaps)}
        spaces.append(entry | {"items": len(x), "fingerprint": digest.hexdigest(), "fit_items": found})
        write(options.out, spaces)
        print(space.name, {n: (r["choice"]["methods"], round(100 * r["choice"]["gain"], 2)) for n, r in found.items()})


def write(out: Path, spaces: list[dict[str, Any]]) -> None:
    protocol = {"seeds": len(SEEDS), "test_items": TEST, "fit_items": list(FIT), "metric": "balanced NDCG@10"}
    results = {"schema": 1, "environment": describe_environment(), "protocol": protocol, "spaces": spaces}
    write_results(out, results)
    if out == RESULT:
        write_block(PAGE, RESULT, table(results))


if __name__ == "__main__":
    main()
