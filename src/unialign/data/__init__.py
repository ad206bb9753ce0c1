"""Named arrays of many items: open a store, write one, or load a shipped data set."""

from unialign.data._store import EmbeddingStore

__all__ = ["EmbeddingStore"]
