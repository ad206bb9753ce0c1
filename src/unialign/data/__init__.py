"""Named arrays of many items: open a store, write one, load a shipped data set, split without leaks."""

from unialign.data._catalog import list_datasets, load_dataset
from unialign.data._encoder_fingerprint import encoder_fingerprint
from unialign.data._split import random_split
from unialign.data._store import EmbeddingStore

__all__ = ["EmbeddingStore", "encoder_fingerprint", "list_datasets", "load_dataset", "random_split"]
