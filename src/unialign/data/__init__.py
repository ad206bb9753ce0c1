"""Named arrays of many items: open a store, write one, load a shipped data set, split without leaks."""

from unialign.data._catalog import load, names
from unialign.data._encoder_fingerprint import column_identity
from unialign.data._split import random_split
from unialign.data._store import EmbeddingStore

__all__ = ["EmbeddingStore", "column_identity", "load", "names", "random_split"]
