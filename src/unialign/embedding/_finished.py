"""Open the finished store of an earlier run in a different environment."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.embedding._make_plan import limits_of
from unialign.embedding._resume import ChangedFiles
from unialign.embedding._reuse import stored_marks
from unialign.encoders import Encoder
from unialign.items import Items

__all__ = ["finished_features"]


def finished_features(
    path: Path, items: Items, encoders: Mapping[str, Encoder], config: EmbedConfig
) -> EmbeddingStore | None:
    """Return the store if it has the features of the same items, encoders and settings, even if they were computed with
    a different version of torch (with a warning), number of threads or type of device.

    Raises:
        DataError: the store is damaged, or files changed since they were encoded.
    """
    if config.retry_broken or config.allow_changed or not (path / "store.json").is_file():
        return None
    store = EmbeddingStore.open(path)
    columns: Any = store.provenance.get("columns", {})
    data: Any = store.provenance.get("data", {})
    settings: Any = store.provenance.get("plan", {}).get("settings", {})
    wanted = {
        "dtype": config.dtype,
        "limits": asdict(limits_of(config)),
        "hash": config.hash,
        "thumbnails": config.thumbnails,
    }
    is_same = (
        data.get("fingerprint") == items.fingerprint
        and {name: entry.get("fingerprint") for name, entry in columns.items()}
        == {name: encoder.fingerprint for name, encoder in encoders.items()}
        and {name: settings.get(name) for name in wanted} == wanted
    )
    if not is_same:
        return None
    changed = ChangedFiles(items.roots)
    for _, marks in stored_marks(store):
        changed.in_part(marks)
    if changed.found:
        raise changed.error()
    import torch

    if settings.get("torch") != str(torch.__version__):
        warnings.warn(
            f"the features in {path} were computed with torch {settings.get('torch')}, but torch {torch.__version__} "
            "is installed; they may differ by rounding",
            stacklevel=2,
        )
    return store
