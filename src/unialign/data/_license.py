"""Find the license of the data of a store."""

from collections.abc import Mapping

from unialign.data._store import EmbeddingStore

__all__ = ["data_license"]


def data_license(store: EmbeddingStore) -> str:
    """Return the license in the provenance of the store, for example that of the item table, or "unknown"."""
    data = store.provenance.get("data")
    found = data.get("license") if isinstance(data, Mapping) else None
    return str(found or store.provenance.get("license") or "unknown")
