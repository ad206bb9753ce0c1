"""What made a column, as one hash: two columns with equal identities may be compared number by number."""

from collections.abc import Mapping
from typing import Any

from unialign.data._store import EmbeddingStore
from unialign.io import canonical_json, digest

__all__ = ["encoder_fingerprint"]

# What says nothing about the coordinates: the same encoder may have seen other pictures, on another machine.
_LEFT_OUT = ("input", "synthetic", "voices", "packages", "licence")


def encoder_fingerprint(store: EmbeddingStore, column: str) -> str:
    """sha256 of what made a column: of its encoder, weights, pooling and reduction, as the store's provenance has them.

    What was encoded (`input`, `synthetic`, `voices`) and with which software (`packages`, `licence`) is left out, so
    that pictures of another data set through the same encoder have the same identity. Facts of a reduction, such as its
    explained variance, count: they are the evidence of which axes it has. An entry `identity` is taken as it is: it is
    what a decoder's own image tower signs its embeddings with. A column without provenance has the identity of its own
    numbers, and is equal to itself only.

    Raises:
        ConfigError: no such column.
    """
    store.width(column)
    made: Any = store.provenance.get("columns", {}).get(column)
    if isinstance(made, Mapping):
        if isinstance(made.get("identity"), str):
            return str(made["identity"])
        kept = {key: value for key, value in made.items() if key not in _LEFT_OUT}
        if kept:
            return digest(canonical_json(kept))
    return store.checksum(column)
