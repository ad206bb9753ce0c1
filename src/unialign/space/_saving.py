"""Save and publish a space as a folder, with a model card."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unialign._version import __version__
from unialign.io import check_json_object, push_folder, save_folder

if TYPE_CHECKING:
    from unialign.space._space import Space


def save(space: "Space", directory: str | os.PathLike[str]) -> None:
    """See `Space.save_pretrained`."""
    metadata = check_json_object("space", space.metadata)
    save_folder(
        "space",
        directory,
        settings=space.get_config(),
        metadata=metadata,
        tensors=space.state_dict(),
        card=_card(space, metadata),
    )


def push(space: "Space", repo_id: str, **options: Any) -> str:
    """See `Space.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        save(space, folder)
        return push_folder(Path(folder), repo_id, **options)


def _card(space: "Space", metadata: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {dim} |" for name, dim in space.dims.items())
    # Metadata given by the user may lack the entries that `fit` writes, or have other types.
    training, data = (part if isinstance(part, dict) else {} for part in map(metadata.get, ("training", "data")))
    made = f"Trained with `{training['objective']}`" if "objective" in training else "Made"
    source = f" on `{data['name']}` (fingerprint `{data.get('fingerprint')}`)" if "name" in data else ""
    first, dim = next(iter(space.dims.items()))
    return f"""---
library_name: unialign
tags: [multimodal, embeddings]
---

# A shared embedding space

{made}{source} (unialign {__version__}). The space has {len(space.dims)} modalities, {space.dim} dimensions,
head `{space.head}` and input norm `{space.input_norm}`. It maps features of frozen encoders, not raw media.

| modality | dim of its features |
|---|---|
{rows}

```python
import unialign as ua

space = ua.Space.from_pretrained("path or owner/name of this folder")
embeddings = space.encode({{"{first}": features}})  # (items, {dim}) -> unit rows
```
"""
