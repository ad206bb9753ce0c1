"""Save and publish a space as a folder, with a model card."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from unialign._checks import check_choice
from unialign._version import __version__
from unialign.config import SpaceFormat
from unialign.errors import CheckpointError, ConfigError
from unialign.io import CARD, check_json_object, checked_path, digest, push_folder, save_folder
from unialign.space._sentence_transformer import discard_modules, write_modules, written_card
from unialign.space._towers import Tower, towers_of

if TYPE_CHECKING:
    from unialign.space._space import Space


def save(space: "Space", directory: str | os.PathLike[str], *, format: str, encoders: Any) -> None:
    check_choice("format", format, get_args(SpaceFormat))
    metadata = check_json_object("space", space.metadata)
    folder = checked_path(directory, "the folder to save in", error=CheckpointError)
    plain = _card(space, metadata, [])
    if format == "unialign":
        if encoders is not None:
            raise ConfigError("encoders are stored only with format='sentence-transformers'; set it, or omit encoders")
        _discard_card(folder, written_card(folder))
        _save_space(space, folder, metadata, plain)
        discard_modules(folder)
        return
    towers = towers_of(encoders, space.dims, metadata)
    card = _card(space, metadata, towers)

    def save_space() -> None:
        _discard_card(folder, written_card(folder), digest(plain.encode()))
        _save_space(space, folder, metadata, card)

    write_modules(space, towers, folder, card, save_space)


def push(space: "Space", repo_id: str, *, format: str, encoders: Any, **options: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        save(space, folder, format=format, encoders=encoders)
        return push_folder(Path(folder), repo_id, **options)


def _save_space(space: "Space", folder: Path, metadata: dict[str, Any], card: str) -> None:
    save_folder(
        "space",
        folder,
        settings=space.get_config(),
        metadata=metadata,
        tensors=space.state_dict(),
        card=card,
    )


def _discard_card(folder: Path, *digests: str | None) -> None:
    """Keep a card that was edited, which the digest shows."""
    with contextlib.suppress(OSError):
        if digest((folder / CARD).read_bytes()) in digests:
            (folder / CARD).unlink()


def _card(space: "Space", metadata: dict[str, Any], towers: Sequence[Tower]) -> str:
    rows = "\n".join(f"| {name} | {dim} |" for name, dim in space.dims.items())
    # Metadata given by the user may lack the entries that `fit` writes, or have other types.
    training, data = (part if isinstance(part, dict) else {} for part in map(metadata.get, ("training", "data")))
    form = metadata.get("closed_form")
    made = f"Trained with `{training['objective']}`" if "objective" in training else "Made"
    if isinstance(form, dict) and training.get("epochs", 0) == 0:
        method = {"gcca": "GCCA", "ridge": "ridge regression"}.get(str(form.get("method")), "a closed form")
        made = f"Computed by kernel {method}" if form.get("kernel") == "rbf" else f"Computed by {method}"
    source = f" on `{data['name']}` (fingerprint `{data.get('fingerprint')}`)" if "name" in data else ""
    first, dim = next(iter(space.dims.items()))
    inputs = (
        f"It maps {' and '.join(tower.kind for tower in towers)} to unit vectors, with the encoders in this folder."
        if towers
        else "It maps features of frozen encoders, not raw media."
    )
    return f"""---
{_front_matter(towers)}
---

# A shared embedding space

{made}{source} (unialign {__version__}). The space has {len(space.dims)} modalities, {space.dim} dimensions,
head `{space.head}` and input norm `{space.input_norm}`. {inputs}

| modality | dim of its features |
|---|---|
{rows}
{_encoder_snippet(towers)}
```python
import unialign as ua

space = ua.Space.from_pretrained("path or owner/name of this folder")
embeddings = space.encode({{"{first}": features}})  # (items, {dim}) -> unit rows
```
"""


def _front_matter(towers: Sequence[Tower]) -> str:
    if not towers:
        return "library_name: unialign\ntags: [multimodal, embeddings]"
    tags = ", ".join(["unialign", "sentence-transformers", "multimodal", *(tower.kind for tower in towers)])
    lines = ["library_name: sentence-transformers", "pipeline_tag: feature-extraction", f"tags: [{tags}]"]
    licenses = {tower.license for tower in towers}
    # A folder with encoders under different licenses has no single license.
    if len(licenses) == 1 and None not in licenses:
        lines.append(f"license: {licenses.pop()}")
    return "\n".join(lines)


_EXAMPLES = {"text": '["a text"]', "image": '["photo.png"]', "audio": '["sound.wav"]', "video": '["film.mp4"]'}


def _encoder_snippet(towers: Sequence[Tower]) -> str:
    if not towers:
        return ""
    calls = "\n".join(f"{tower.kind} = model.encode({_EXAMPLES[tower.kind]})" for tower in towers)
    return f"""
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path or owner/name of this folder")
{calls}
```

`Space` also reads the folder, and maps the features of an encoder:
"""
