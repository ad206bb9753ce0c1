"""Compute the encoder fingerprint of a column; columns with equal fingerprints are in the same embedding space."""

from collections.abc import Mapping
from typing import Any

from unialign.data._store import EmbeddingStore
from unialign.io import canonical_json, digest

__all__ = ["encoder_fingerprint", "stated_fingerprint"]

# Provenance entries that do not affect the embedding space.
_LEFT_OUT = ("input", "synthetic", "voices", "packages", "license")


def encoder_fingerprint(store: EmbeddingStore, column: str) -> str:
    """Return the sha256 of the encoder and the reduction in the provenance of a column.

    Entries about the encoded data (`input`, `synthetic`, `voices`) and the software (`packages`, `license`) are
    ignored, so an encoder has the same fingerprint on every data set. An entry `fingerprint` is returned unchanged.
    Without provenance, the checksum of the array is returned.

    Raises:
        ConfigError: the store has no such column.
    """
    stated = stated_fingerprint(store, column)
    return store.checksum(column) if stated is None else stated


def stated_fingerprint(store: EmbeddingStore, column: str) -> str | None:
    """Return None if the provenance of a column does not describe an encoder."""
    store.dim(column)
    made: Any = store.provenance.get("columns", {}).get(column)
    if isinstance(made, Mapping):
        if isinstance(made.get("fingerprint"), str):
            return str(made["fingerprint"])
        kept = {key: value for key, value in made.items() if key not in _LEFT_OUT}
        if kept:
            return digest(canonical_json(kept))
    return None
