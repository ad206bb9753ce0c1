"""Measure how often `ua.diagnose` reports a fault in healthy spaces and in spaces with a planted fault.

In a healthy space, each item has one latent vector, and each modality adds noise. Sizes, noise, spectrum, precision and
the fraction of absent rows are random.

    python -m benchmarks.diagnosis
    python -m benchmarks.diagnosis --only-large   measures only the healthy spaces of 2,000 to 10,000 items
    python -m benchmarks.diagnosis --only-batch   measures only the finding `similar_negatives`
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from unialign.io import describe_environment

RESULT, PAGE = RESULTS / "diagnosis.json", ROOT / "docs" / "how-to" / "diagnose.md"
SERIOUS = ("problem", "warning")
Array = np.ndarray[Any, Any]
Space = dict[str, Array]


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@dataclass(frozen=True)
class Sizes:
    """Ranges of the sizes of random spaces.

    Attributes:
        items: lowest and highest number of items; the logarithm of the number is uniform.
        log_dim: lowest and highest base-2 logarithm of the dimension.
        modalities: equally probable numbers of modalities.
    """

    items: tuple[int, int]
    log_dim: tuple[float, float]
    modalities: tuple[int, ...]


SIZES = {"healthy": Sizes((60, 1000), (3, 8), (2, 2, 3, 4)), "large": Sizes((2000, 10_000), (5, 9), (5, 6, 7, 8))}


def healthy(rng: np.random.Generator, sizes: Sizes = SIZES["healthy"]) -> tuple[Space, dict[str, Any]]:
    items, dim = int(np.exp(rng.uniform(*np.log(sizes.items)))), int(2 ** rng.uniform(*sizes.log_dim))
    modalities, noise, power = int(rng.choice(sizes.modalities)), rng.uniform(0.2, 1.2), rng.uniform(0.0, 0.5)
    scale = np.arange(1, dim + 1) ** -power
    # The axes are rotated, since the order of the coordinates has no meaning in a healthy space.
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    latent = rng.normal(size=(items, dim))
    space = {
        f"m{m}": unit(((latent + noise * rng.normal(size=(items, dim))) * scale) @ turn) for m in range(modalities)
    }
    half, absent = bool(rng.random() < 0.3), rng.random() < 0.3
    space = {name: z.astype(np.float16 if half else np.float32) for name, z in space.items()}
    if absent:
        space["present.m1"] = rng.random(items) < rng.uniform(0.5, 0.95)
    settings = {"items": items, "dim": dim, "modalities": modalities, "noise": noise, "power": power}
    return space, settings | {"float16": half, "absent": bool(absent)}


def _latent(rng: np.random.Generator, dim: int = 32, items: int | None = None) -> tuple[Array, int, int]:
    items = int(rng.integers(400, 800)) if items is None else items
    return rng.normal(size=(items, dim)), items, dim


def modality_bias(rng: np.random.Generator) -> Space:
    """Two narrow cones whose distance is small, but larger than their width."""
    latent, items, dim = _latent(rng)
    offset = rng.uniform(3.0, 4.0)
    axes = np.eye(dim)
    a, b = (unit(latent + 0.6 * rng.normal(size=(items, dim))) for _ in range(2))
    return {"a": unit(a + offset * axes[0] + 0.5 * axes[1]), "b": unit(b + offset * axes[0] - 0.5 * axes[1])}


def distribution_gap(rng: np.random.Generator) -> Space:
    """Two modalities with private directions and equal means."""
    latent, items, dim = _latent(rng, 16)
    turn = np.linalg.qr(rng.normal(size=(3 * dim, 3 * dim)))[0]
    zero, weight = np.zeros((items, dim)), rng.uniform(1.0, 1.4)
    own = [weight * rng.normal(size=(items, dim)) for _ in range(2)]
    parts = {"a": [latent, own[0], zero], "b": [latent, zero, own[1]]}
    return {name: unit(np.hstack(columns) @ turn) for name, columns in parts.items()}


def shared_component(rng: np.random.Generator) -> Space:
    latent, items, dim = _latent(rng)
    offset = rng.uniform(1.2, 3.0) * np.eye(dim)[0]
    return {name: unit(unit(latent + 0.4 * rng.normal(size=(items, dim))) + offset) for name in "abc"}


def uneven_sharpness(rng: np.random.Generator) -> Space:
    """Two modalities, of which one has few large directions."""
    latent, items, dim = _latent(rng)
    scale = np.r_[np.ones(4), np.full(dim - 4, rng.uniform(0.1, 0.2))]
    a, b = (latent + 0.3 * rng.normal(size=(items, dim)) for _ in range(2))
    return {"a": unit(a), "b": unit(b * scale)}


def uneven_cutoffs(rng: np.random.Generator) -> Space:
    """Four modalities, of which two have a common offset."""
    latent, items, dim = _latent(rng)
    offset = rng.uniform(0.7, 1.0) * np.eye(dim)[0]
    z = {name: unit(unit(latent) + 0.07 * rng.normal(size=(items, dim))) for name in "abcd"}
    return z | {name: unit(z[name] + offset) for name in "cd"}


def asymmetry(rng: np.random.Generator) -> Space:
    """The gap makes one direction worse, but by less than half."""
    latent, items, dim = _latent(rng)
    a, b = (unit(latent + rng.normal(size=(items, dim))) for _ in range(2))
    return {"a": a, "b": unit(b + rng.uniform(0.45, 0.55) * np.eye(dim)[0])}


def truncation(rng: np.random.Generator) -> Space:
    """Two modalities whose first coordinates hold little information."""
    latent, items, dim = _latent(rng, 12)
    mixing = np.hstack([0.02 * rng.normal(size=(dim, 48)), rng.normal(size=(dim, 48))])
    small = 0.02 * rng.normal(size=(2, items, 96))
    return {
        name: unit((latent + 0.3 * rng.normal(size=(items, dim))) @ mixing + small[i]) for i, name in enumerate("ab")
    }


def similar_negatives(rng: np.random.Generator) -> Space:
    """Groups of 6 to 12 similar items."""
    size = int(rng.integers(6, 13))
    center, groups, dim = _latent(rng, items=int(rng.integers(400, 800)) // size)
    latent = np.repeat(center, size, axis=0) + rng.uniform(0.4, 0.8) * rng.normal(size=(size * groups, dim))
    return {name: unit(latent + 0.3 * rng.normal(size=latent.shape)) for name in "ab"}


PLANTED: dict[str, Callable[[np.random.Generator], Space]] = {
    f.__name__: f
    for f in (
        modality_bias, distribution_gap, shared_component, uneven_sharpness, uneven_cutoffs, asymmetry, truncation,
        similar_negatives,
    )
}  # fmt: skip


def reported(space: Mapping[str, Any], seed: int) -> dict[str, str]:
    report = ua.diagnose(dict(space), resamples=200, seed=seed)
    return {finding.code: finding.severity for finding in report.findings if finding.severity != "ok"}


def add_similar_negatives(stored: dict[str, Any]) -> None:
    code = "similar_negatives"
    for key, kind in (("spaces", "healthy"), ("large_spaces", "large")):
        for seed, space in enumerate(stored[key]):
            space["reported"].pop(code, None)
            z, _ = healthy(np.random.default_rng([0 if kind == "healthy" else 3, seed]), SIZES[kind])
            if code in reported(z, seed):
                space["reported"][code] = "note"
    runs = stored["settings"]["planted"]
    hits = [code in reported(similar_negatives(np.random.default_rng([1, seed])), seed) for seed in range(runs)]
    spaces = stored["spaces"]
    count = sum(code in space["reported"] for space in spaces)
    stored["findings"][code] = {
        "healthy": {"count": count, "runs": len(spaces), "interval": interval(count, len(spaces))},
        "planted": {"count": sum(hits), "runs": len(hits)},
    }


def interval(count: int, runs: int) -> list[float]:
    """Exact 95 % interval of a rate (Clopper & Pearson 1934)."""

    def tail(p: float, most: int) -> float:
        return sum(math.comb(runs, k) * p**k * (1 - p) ** (runs - k) for k in range(most + 1))

    def bisect(above: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if above(middle) else (low, middle)
        return low

    least = 0.0 if count == 0 else bisect(lambda p: 1 - tail(p, count - 1) < 0.025)
    most = 1.0 if count == runs else bisect(lambda p: tail(p, count) > 0.025)
    return [least, most]


def coverage(runs: int) -> dict[str, Any]:
    def draw(rng: np.random.Generator, items: int) -> Space:
        latent, _, dim = _latent(rng, 24, items)
        scale = np.arange(1, dim + 1) ** -0.3
        return {name: unit((latent + 0.8 * rng.normal(size=(items, dim))) * scale) for name in "ab"}

    large = draw(np.random.default_rng(1), 20_000)
    true = (large["a"] * large["b"]).sum(1)
    random = np.concatenate([(large["a"] * np.roll(large["b"], k, 0)).sum(1) for k in range(1, 201)])
    found: dict[str, list[bool]] = {}
    for seed in range(runs):
        z = draw(np.random.default_rng([2, seed]), 500)
        for cutoff in ua.diagnose(z, resamples=400, seed=seed).numbers["pairs"]["a-b"]["cutoffs"]:
            at = float(np.quantile(random, 1 - cutoff["rate"]))
            fraction = float((true > at).mean())
            for key, value in (("cosine", at), ("true_fraction", fraction)):
                inside = cutoff[key]["low"] <= value <= cutoff[key]["high"]
                found.setdefault(f"{key} at {100 * cutoff['rate']:g} %", []).append(inside)
    return {key: {"covered": sum(values), "runs": len(values)} for key, values in found.items()}


def table(results: Mapping[str, Any]) -> str:
    lines = [
        "| finding | healthy spaces, 60 to 1,000 items | healthy spaces, 2,000 to 10,000 items | planted spaces |",
        "|---|---:|---:|---:|",
    ]
    sets = [results["spaces"], results["large_spaces"]]
    for code, found in results["findings"].items():
        true = found["planted"]
        cells = " | ".join(_rate(code in space["reported"] for space in spaces) for spaces in sets)
        lines.append(f"| `{code}` | {cells} | {true['count']} of {true['runs']} |")
    for code in _other_findings(results):
        cells = " | ".join(_rate(space["reported"].get(code) in SERIOUS for space in spaces) for spaces in sets)
        lines.append(f"| `{code}`, problem or warning | {cells} | |")
    lines += ["", "| intervals of cut-offs, 500 items | contain the value of 20,000 items |", "|---|---:|"]
    for key, found in results["coverage"].items():
        name, rate = key.split(" at ")
        words = {"cosine": "cut-off for a rate of", "true_fraction": "fraction of true pairs above the cut-off for"}
        lines.append(f"| {words[name]} {rate} | {found['covered']} of {found['runs']} |")
    return "\n".join(lines) + "\n"


def _other_findings(results: Mapping[str, Any]) -> list[str]:
    """Return the codes of all other problems and warnings that any healthy space has."""
    spaces = [*results["spaces"], *results["large_spaces"]]
    found = {code for space in spaces for code, severity in space["reported"].items() if severity in SERIOUS}
    return sorted(found - set(results["findings"]))


def _rate(reported: Iterable[bool]) -> str:
    values = list(reported)
    low, high = (100 * bound for bound in interval(sum(values), len(values)))
    return f"{sum(values)} of {len(values)} [{low:.1f}, {high:.1f} %]"


def measure_healthy(kind: str, count: int) -> list[dict[str, Any]]:
    spaces = []
    for seed in range(count):
        space, settings = healthy(np.random.default_rng([0 if kind == "healthy" else 3, seed]), SIZES[kind])
        spaces.append(settings | {"reported": reported(space, seed)})
        print(kind, seed, settings["items"], settings["dim"], spaces[-1]["reported"], flush=True)
    return spaces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="only write the table of the stored results")
    parser.add_argument("--only-large", action="store_true", help="measure only the large spaces")
    parser.add_argument("--only-batch", action="store_true", help="measure only the finding `similar_negatives`")
    parser.add_argument("--healthy", type=int, default=200)
    parser.add_argument("--large", type=int, default=37)
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--coverage", type=int, default=100)
    options = parser.parse_args()
    if options.table:
        write_block(PAGE, RESULT, table(json.loads(RESULT.read_text("utf-8"))))
        return
    torch.set_num_threads(1)
    if options.only_batch:
        stored = json.loads(RESULT.read_text("utf-8"))
        add_similar_negatives(stored)
        write_results(RESULT, stored)
        write_block(PAGE, RESULT, table(stored))
        return
    large_spaces = measure_healthy("large", options.large)
    if options.only_large:
        stored = json.loads(RESULT.read_text("utf-8"))
        stored |= {"large_spaces": large_spaces, "large_environment": describe_environment()}
        write_results(RESULT, stored)
        write_block(PAGE, RESULT, table(stored))
        return
    spaces = measure_healthy("healthy", options.healthy)
    findings: dict[str, Any] = {}
    for code, plant in PLANTED.items():
        hits = [code in reported(plant(np.random.default_rng([1, seed])), seed) for seed in range(options.planted)]
        count = sum(code in space["reported"] for space in spaces)
        findings[code] = {
            "healthy": {"count": count, "runs": len(spaces), "interval": interval(count, len(spaces))},
            "planted": {"count": sum(hits), "runs": len(hits)},
        }
        print(code, findings[code], flush=True)
    results = {
        "environment": describe_environment(),
        "settings": {key: vars(options)[key] for key in ("healthy", "large", "planted", "coverage")}
        | {"resamples": 200, "seeds": "0, 1, ..."},
        "findings": findings,
        "coverage": coverage(options.coverage),
        "spaces": spaces,
        "large_spaces": large_spaces,
        "large_environment": describe_environment(),
    }
    write_results(RESULT, results)
    write_block(PAGE, RESULT, table(results))
    print(results["coverage"])


if __name__ == "__main__":
    main()
