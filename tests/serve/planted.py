"""An index with planted faults: a hub, a swapped pair, two copies and an outlier."""

from pathlib import Path

import numpy as np

import unialign as ua

ITEMS, DIM = 240, 32
MODALITIES = ("image", "text", "audio")
SWAPPED = ("item-10", "item-11")
COPIES = ("item-20", "item-21")
HUB, OUTLIER = "item-30", "item-40"


def planted_rows(seed: int = 0, items: int = ITEMS) -> dict[str, np.ndarray]:
    """Rows on a subspace, close to each other in all modalities of an item, but for the planted faults."""
    rng = np.random.default_rng(seed)
    shared = np.zeros((items, DIM))
    shared[:, :24] = rng.normal(size=(items, 24))
    # A cluster around a center, where the hub lies: it is nearer to each of them than they are to each other.
    center = 1.2 * rng.normal(size=24)
    shared[100:180, :24] += center
    z = {name: shared + 0.15 * rng.normal(size=shared.shape) for name in MODALITIES}
    z["text"][[10, 11]] = z["text"][[11, 10]]
    z["image"][21] = z["image"][20]
    z["audio"][30, :24] = center
    z["image"][40] = 0.0
    z["image"][40, 24:] = 4.0
    return {name: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for name, rows in z.items()}


def planted_index(folder: Path, rows: dict[str, np.ndarray] | None = None) -> ua.Index:
    """Write an index of the planted rows, whose correction does nothing; item 5 has no audio."""
    z = planted_rows() if rows is None else rows
    number = np.arange(len(z["image"]))
    index = ua.Index.create(folder, dim=DIM, modalities=MODALITIES)
    index.add(
        z,
        present={"audio": number != 5},
        keys=[f"item-{n}" for n in number],
        labels=["even" if n % 2 == 0 else "odd" for n in number],
        metadata=[{"number": int(n)} for n in number],
        previews=[{"text": ("text/plain; charset=utf-8", f"text of {n}".encode())} for n in number],
    )
    return index
