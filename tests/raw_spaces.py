"""A small store of texts, pictures and vectors with the references of its encoders, for tests of raw media."""

from functools import cache
from typing import Any

import numpy as np

from unialign.data import EmbeddingStore
from unialign.encoders import Encoder, create, encode_media
from unialign.media import as_media
from unialign.space import Space

ITEMS = 24
ENCODERS = {"text": "builtin:chars?dim=32", "image": "builtin:conv?size=32", "sensor": "builtin:log1p?dim=5"}
_COLORS = ("red", "green", "blue", "grey", "white", "black")
_THINGS = ("cat", "ship", "tree", "house")


@cache
def encoder(name: str) -> Encoder:
    return create(ENCODERS[name], device="cpu")


@cache
def raw() -> dict[str, list[Any]]:
    """Return the raw media of each modality; every fifth picture and the first sensor are absent."""
    rng = np.random.default_rng(0)
    texts = [f"A {_COLORS[i % 6]} {_THINGS[i // 6]}." for i in range(ITEMS)]
    images = [None if i % 5 == 4 else rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for i in range(ITEMS)]
    sensors = [None if i == 0 else rng.uniform(0, 9, 5).astype(np.float32) for i in range(ITEMS)]
    return {"text": texts, "image": images, "sensor": sensors}


@cache
def store() -> EmbeddingStore:
    columns, present, provenance = {}, {}, {}
    for name, values in raw().items():
        made = encoder(name)
        media = [as_media(value, made.media, decoding=made.decoding) for value in values]
        columns[name] = encode_media(made, media).numpy()
        present[name] = np.array([value is not None for value in values])
        provenance[name] = {"fingerprint": made.fingerprint, "reference": made.reference}
    split = ["train" if i % 3 else "test" for i in range(ITEMS)]
    return EmbeddingStore.from_arrays(
        columns, present=present, split=split, provenance={"columns": provenance, "data": {"license": "CC0-1.0"}}
    )


def make_space(**options: Any) -> Space:
    """Return a space with random heads and the references of the encoders."""
    dims = {name: encoder(name).dim for name in ENCODERS}
    references = {name: encoder(name).reference for name in ENCODERS}
    return Space(dims, **{"dim": 6, "hidden": 8, "encoders": references, **options}).eval()
