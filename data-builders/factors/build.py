"""Build a synthetic store of 24,000 items in four modalities with common and private factors.

Usage: PYTHONPATH=../../src python build.py <folder of the store>
"""

import sys
from pathlib import Path

import numpy as np

from unialign.data import EmbeddingStore

TRAIN, VAL, TEST = 21_000, 1_000, 2_000
CLASSES, COMMON, PRIVATE = 40, 24, 24
DIMS = {"image": 256, "text": 192, "audio": 128, "sensor": 64}
# Standard deviation of the noise of each column; the signal has a standard deviation of about 0.6.
NOISE = {"image": 1.0, "text": 1.0, "audio": 1.5, "sensor": 1.5}
PRESENT = {"audio": 0.7, "sensor": 0.4}
SEED = 0


def view(rng: np.random.Generator, factors: np.ndarray, dim: int, noise: float) -> np.ndarray:
    """Return features of factors: a random layer with a tanh, a random linear map, and noise."""
    hidden = np.tanh(factors @ rng.normal(size=(factors.shape[1], 2 * dim)) / np.sqrt(factors.shape[1]))
    mixed = hidden @ rng.normal(size=(2 * dim, dim)) / np.sqrt(2 * dim)
    return (mixed + noise * rng.normal(size=mixed.shape)).astype(np.float32)


def main(out: Path) -> None:
    rng = np.random.default_rng(SEED)
    items = TRAIN + VAL + TEST
    labels = rng.integers(CLASSES, size=items)
    common = rng.normal(size=(CLASSES, COMMON))[labels] + rng.normal(size=(items, COMMON))
    columns = {}
    for name, dim in DIMS.items():
        private = rng.normal(size=(items, PRIVATE))
        columns[name] = view(rng, np.hstack([common, private]), dim, NOISE[name])
    store = EmbeddingStore.write(
        out,
        columns,
        present={name: rng.random(items) < fraction for name, fraction in PRESENT.items()},
        labels=labels,
        split=["train"] * TRAIN + ["val"] * VAL + ["test"] * TEST,
        provenance={"synthetic": True, "classes": CLASSES, "common_factors": COMMON, "private_factors": PRIVATE},
        overwrite="replace",
    )
    print(store)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
