"""Fingerprint of the encoder of a column; columns with equal fingerprints share coordinates."""

from collections.abc import Mapping
from typing import Any

from unialign.data._store import EmbeddingStore
from unialign.io import canonical_json, digest

__all__ = ["encoder_fingerprint"]

# Provenance entries that do not affect the coordinates, such as the encoded images.
_LEFT_OUT = ("input", "synthetic", "voices", "packages", "licence")


def encoder_fingerprint(store: EmbeddingStore, column: str) -> str:
    """Return the sha256 of the encoder, weights, pooling and reduction of a column, from the store's provenance.

    Entries about the encoded data (`input`, `synthetic`, `voices`) and the software (`packages`, `licence`) are left
    out, so that images of another data set have the same fingerprint under the same encoder. An entry `fingerprint`,
    which the image encoder of a decoder writes, is returned unchanged. A column without provenance gets the checksum of
    its array.

    Raises:
        ConfigError: no such column.
    """
    store.dim(column)
    made: Any = store.provenance.get("columns", {}).get(column)
    if isinstance(made, Mapping):
        if isinstance(made.get("fingerprint"), str):
            return str(made["fingerprint"])
        kept = {key: value for key, value in made.items() if key not in _LEFT_OUT}
        if kept:
            return digest(canonical_json(kept))
    return store.checksum(column)
