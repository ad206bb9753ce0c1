# ruff: noqa: E501
"""Write comparison folders with random content, for tests and for visual checks of the page."""

import base64
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

# An image of one pixel, which suffices since the page does not decode images.
PIXEL = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")

EMOJI = ("image", "drawing", "text", "keywords", "speech")
LABELS = {"unialign": "UniAlign", "infonce": "InfoNCE", "gram": "GRAM"}
METRICS: dict[str, dict[str, Any]] = {
    "recall@1": {
        "label": "R@1",
        "unit": "percent",
        "higher_is_better": True,
        "primary": True,
        "description": "Fraction of queries whose positive ranks first, mean over all directions.",
    },
    "recall@10": {
        "label": "R@10",
        "unit": "percent",
        "higher_is_better": True,
        "description": "Fraction of queries whose positive is among the first ten.",
    },
    "median_rank": {
        "label": "Median rank",
        "unit": "number",
        "higher_is_better": False,
        "description": "Rank of the positive, median over queries.",
    },
    "joint_recall@1": {
        "label": "Joint R@1",
        "unit": "percent",
        "higher_is_better": True,
        "primary": True,
        "description": "Retrieval of one modality with the mean of all others.",
    },
    "label_map": {
        "label": "Label mAP",
        "unit": "percent",
        "higher_is_better": True,
        "primary": True,
        "description": "Mean average precision with the label as relevance.",
    },
    "v_measure": {
        "label": "V-measure",
        "unit": "percent",
        "higher_is_better": True,
        "primary": True,
        "description": "Agreement of clusters of the joint set with the labels.",
    },
    "modality_gap_debiased": {
        "label": "Modality gap, debiased",
        "unit": "number",
        "higher_is_better": False,
        "primary": True,
        "description": "Distance between means, minus sampling noise.",
    },
    "modality_gap": {
        "label": "Modality gap, raw",
        "unit": "number",
        "higher_is_better": False,
        "description": "Distance between means.",
    },
    "true_pair_cosine": {
        "label": "True-pair cosine",
        "unit": "number",
        "higher_is_better": None,
        "description": "Cosine of an item's two modalities.",
    },
    "zeta": {
        "label": "Conflict ζ",
        "unit": "number",
        "higher_is_better": None,
        "description": "Cosine of the alignment and uniformity gradients.",
    },
    "zeta_neg": {
        "label": "Conflict ζ⁻",
        "unit": "number",
        "higher_is_better": False,
        "description": "The same without the positive.",
    },
    "chi": {
        "label": "Conflict χ",
        "unit": "number",
        "higher_is_better": False,
        "description": "Disagreement of positives.",
    },
    "effective_rank": {
        "label": "Effective rank",
        "unit": "number",
        "higher_is_better": True,
        "description": "Number of directions that hold the variance.",
    },
}
_TYPICAL = {
    "recall@1": 0.28, "recall@10": 0.66, "median_rank": 5.2, "joint_recall@1": 0.47, "label_map": 0.35, "v_measure": 0.41,
    "modality_gap_debiased": 0.03, "modality_gap": 0.09, "true_pair_cosine": 0.45, "zeta": 0.93, "zeta_neg": 0.21, "chi": 0.12, "effective_rank": 61.0,
}  # fmt: skip
_BETTER = {"unialign": 1.06, "infonce": 1.0, "gram": 0.9}


def make_folder(
    folder: Path,
    *,
    modalities: Sequence[str] = EMOJI,
    objectives: Sequence[str] = ("unialign", "infonce", "gram"),
    seeds: int = 3,
    items: int = 60,
    dim: int = 16,
    names: Sequence[str] | None = None,
    with_images: Sequence[str] = ("image", "drawing"),
    image: Callable[[str, int], bytes] = lambda modality, position: PIXEL,
    steps: int = 60,
) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"item {i}" for i in range(items)] if names is None else list(names)
    labels = [f"group {i % 7}" for i in range(7)]
    _write(
        folder / "items.json",
        {
            "rows": [3 * i + 1 for i in range(items)],
            "names": names,
            "labels": [i % 7 for i in range(items)],
            "label_names": labels,
        },
    )
    if with_images:
        with zipfile.ZipFile(folder / "thumbnails.zip", "w") as archive:
            for modality in with_images:
                for i in range(items):
                    archive.writestr(f"{modality}/{i}.webp", image(modality, i))
    runs = []
    for k, objective in enumerate(objectives):
        for seed in range(seeds):
            where = folder / "runs" / f"{objective}-seed{seed}"
            where.mkdir(parents=True, exist_ok=True)
            z = _space(
                np.random.default_rng([k, seed]), modalities, items, dim, gap=0.15 + 0.25 * k, noise=1.15 + 0.1 * k
            )
            save_file({m: rows.astype(np.float16) for m, rows in z.items()}, where / "embeddings.safetensors")
            _write_log(where / "log.jsonl", objective, modalities, steps, rng)
            runs.append(_run(objective, seed, z, rng))
    _write(folder / "results.json", _results(modalities, objectives, seeds, items, runs, rng))
    return folder


def _space(
    rng: np.random.Generator, modalities: Sequence[str], items: int, dim: int, *, gap: float, noise: float
) -> dict[str, np.ndarray]:
    spectrum = 1 / np.sqrt(1 + np.arange(dim) / 4)
    meaning = rng.normal(size=(items, dim)) * spectrum
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    z = {}
    for m in modalities:
        offset = rng.normal(size=dim)
        own = rng.normal(size=(items, dim)) * spectrum
        rows = (
            meaning + gap * offset / np.linalg.norm(offset) + noise * own / np.linalg.norm(own, axis=1, keepdims=True)
        )
        z[m] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return z


def _recall(query: np.ndarray, answer: np.ndarray) -> dict[str, float]:
    scores = query @ answer.T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return {
        "recall@1": float((rank < 1).mean()),
        "recall@10": float((rank < 10).mean()),
        "median_rank": float(np.median(rank) + 1),
    }


def _run(objective: str, seed: int, z: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, Any]:
    directions = {f"{a}->{b}": _recall(z[a], z[b]) for a in z for b in z if a != b}
    if len(z) > 2:
        for b in z:
            others = [a for a in z if a != b]
            directions[f"{'+'.join(others)}->{b}"] = _recall(np.sum([z[a] for a in others], axis=0), z[b])
    metrics = {key: _value(key, objective) * (1 + 0.02 * rng.normal()) for key in METRICS}
    warnings = []
    if objective == "gram":
        warnings = [{"code": "gradient_ratio", "message": "uniformity outweighs alignment 14 times", "step": 40 + seed}]
    where = f"runs/{objective}-seed{seed}"
    return {
        "objective": objective, "seed": seed, "metrics": metrics, "directions": directions,
        "seconds": 11.5 + seed, "warnings": warnings, "folder": where,
    }  # fmt: skip


def _value(metric: str, objective: str) -> float:
    factor = _BETTER.get(objective, 0.95)
    if metric == "v_measure":
        factor = 1.0
    return _TYPICAL[metric] * (factor if METRICS[metric]["higher_is_better"] else 1 / factor)


def _results(
    modalities: Sequence[str],
    objectives: Sequence[str],
    seeds: int,
    items: int,
    runs: list[Any],
    rng: np.random.Generator,
) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for o in objectives:
        summary[o] = {}
        for m in METRICS:
            mean = float(np.mean([r["metrics"][m] for r in runs if r["objective"] == o]))
            summary[o][m] = {"mean": mean, "low": mean - 0.05 * abs(mean), "high": mean + 0.06 * abs(mean)}
    comparisons = []
    for baseline in objectives[1:]:
        for m, about in METRICS.items():
            if not about.get("primary"):
                continue
            difference = summary[objectives[0]][m]["mean"] - summary[baseline][m]["mean"]
            half = 0.055 * _TYPICAL[m]
            gain = difference if about["higher_is_better"] else -difference
            verdict = "tie" if abs(difference) < half else "win" if gain > 0 else "lose"
            p = 0.21 if verdict == "tie" else 0.002
            comparisons.append(
                {
                    "metric": m,
                    "objective": objectives[0],
                    "baseline": baseline,
                    "difference": difference,
                    "low": difference - half,
                    "high": difference + half,
                    "p": p / 5,
                    "p_holm": p,
                    "verdict": verdict,
                    "higher_is_better": about["higher_is_better"],
                }
            )
    return {
        "schema": 1,
        "environment": {"unialign": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "python": "3.11.2", "platform": "Linux-x86_64", "threads": 2, "date": "2026-01-02"},
        "data": {
            "name": "emoji", "fingerprint": "sha256:" + "0f" * 32, "items": 5 * items, "modalities": list(modalities), "split": "test",
            "test_items": items, "synthetic": ["speech"] if "speech" in modalities else [],
            "description": "Concepts in several modalities; features of frozen encoders.", "sources": ["Fluent Emoji (MIT)", "Noto Emoji (Apache-2.0)"],
        },
        "protocol": {
            "name": "unseen concepts", "k": [1, 5, 10], "ties": "expected", "pool": items, "directions": len(modalities) * (len(modalities) - 1),
            "bootstrap": {"resamples": 1000, "level": 0.95, "unit": "group"}, "anchor": "text", "seeds": list(range(seeds)),
            "selection": "hyper-parameters chosen on the validation split, 12 trials each", "baseline": "chance R@1 = 0.3 %",
        },
        "objectives": {
            o: {
                "label": LABELS.get(o, o), "parameters": 512_000,
                "note": "InfoNCE warmup: first 50 % of the steps trained with InfoNCE" if o == "gram" else "",
                "settings": {"temperature": 0.07, "lr": 0.002 if o == "unialign" else 0.001, "batch_size": 256, "epochs": 80, "anchor": "text"},
            }
            for o in objectives
        },
        "metrics": METRICS,
        "runs": runs,
        "summary": summary,
        "comparisons": comparisons,
    }  # fmt: skip


def _write_log(path: Path, objective: str, modalities: Sequence[str], steps: int, rng: np.random.Generator) -> None:
    lines = []
    for step in range(0, steps, max(1, steps // 60)):
        fall, jitter = np.exp(-4 * step / steps), 0.03 * rng.normal()
        name = "infonce" if objective == "gram" and step < steps // 2 else objective
        if name == "unialign":
            terms = {f"uniformity/{m}": -2.5 + (1.5 + 0.2 * i) * fall + jitter for i, m in enumerate(modalities)}
            terms["alignment"] = 0.3 + 0.9 * fall + jitter
        elif name == "infonce":
            terms = {
                f"contrast/{modalities[0]}-{m}": 1 + (3 + 0.3 * i) * fall + jitter for i, m in enumerate(modalities[1:])
            }
        else:
            terms = {"volume_contrast": 0.8 + 2.5 * fall + jitter}
        lines.append(
            {"step": step, "loss": float(sum(terms.values())), "terms": terms, "lr": 1e-3 * fall, "objective": name}
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
