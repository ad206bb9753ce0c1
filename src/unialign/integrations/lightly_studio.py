"""Serve a space as an embedder of LightlyStudio."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unialign._optional import optional_module
from unialign.integrations._mteb_encoder import chosen_modalities
from unialign.space import Space, space_fingerprint

# Kind of media -> interface of lightly_studio_serve and its method.
_INTERFACES: Mapping[str, tuple[str, str]] = {
    "text": ("TextEmbedder", "embed_text"),
    "image": ("ImageBytesEmbedder", "embed_image_bytes"),
}


def embedder(space: Space, *, modalities: Mapping[str, str] | None = None) -> Any:
    """Return a space as an embedder for `lightly_studio_serve.serve`.

    It implements the interfaces of the media that the space encodes: texts, and images as bytes. Blank texts and images
    that cannot be decoded are left out and are not listed in `kept_indices`. The key of the embedding space is the
    fingerprint of the space, so LightlyStudio does not compare its embeddings with those of other weights.

    Args:
        space: a space with encoders.
        modalities: mapping of `text` and `image` to the modality of the space. None: the modality of the same
            name, or the only one with an encoder of this kind of media.

    Returns:
        A `lightly_studio_serve.Embedder`; it can be called from several threads.

    Raises:
        ConfigError: the space encodes none of these media, or several modalities fit.
        MissingDependencyError: lightly-studio-serve is not installed.
    """
    library = optional_module("lightly_studio_serve", "an embedder of LightlyStudio", "lightly-studio")
    chosen = chosen_modalities(space, modalities, kinds_of_media=tuple(_INTERFACES))
    types = library.types
    lock = threading.Lock()
    spec = types.EmbeddingSpaceSpec(space_key=f"unialign@{space_fingerprint(space)}", dimension=space.dim)

    def embed(name: str, values: Sequence[Any]) -> Any:
        if not values:
            return types.EmbeddingResult(np.zeros((0, space.dim), np.float32), [])
        with lock:
            z_BD = space.encode({name: list(values)}, on_error="absent")[name].float().cpu()
        kept = z_BD.any(1).nonzero().flatten().tolist()
        return types.EmbeddingResult(z_BD[kept].numpy(), kept)

    members: dict[str, Any] = {"embedding_space_spec": lambda self: spec}
    for kind, name in chosen.items():
        members[_INTERFACES[kind][1]] = lambda self, values, name=name: embed(name, values)
    bases = tuple(getattr(library, _INTERFACES[kind][0]) for kind in chosen)
    return type("SpaceEmbedder", bases, members)()
