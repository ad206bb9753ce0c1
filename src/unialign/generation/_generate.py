"""Generate images from conditions, and find the most similar training items.

Shapes: `Q` conditions, `V` noises for each, `S` x `S` pixels of an image.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from unialign._checks import check_integer
from unialign._html import html_table
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, MissingDependencyError
from unialign.generation._conditions import Condition
from unialign.generation._decode import decode, nearest_training, resolve_anchor
from unialign.generation._decoder import Decoder
from unialign.generation._images import png_bytes, resize
from unialign.generation._thumbnails import read_thumbnails
from unialign.space import Space

_NEAREST = 3
# Maximum side length in pixels for the comparison with training images; larger images would need too much memory.
_COMPARISON_SIDE = 64


@dataclass(frozen=True, repr=False)
class GenerationResult:
    """Generated images with annotations.

    Attributes:
        conditions: Q conditions.
        images: V images for each condition, of shape (Q, V, 3, S, S), in [0, 1].
        anchor: anchor modality, whose embeddings the conditions replace.
        nearest: for each condition, the training items with the nearest anchor embeddings, as `row`, `name`, `cosine`.
        true_cosines: cosine similarity of each condition and the anchor embedding of the same item; None if there is no
            such embedding.
        copies: for each condition and sample, the training image with the smallest pixel distance, as `row`, `name`,
            `distance` (root mean square, in [0, 1]); None if the store's images cannot be read.
        no_copies_reason: reason why `copies` is None, else "".
    """

    conditions: tuple[Condition, ...]
    images: Tensor
    anchor: str
    nearest: list[list[dict[str, Any]]]
    true_cosines: list[float | None]
    copies: list[list[dict[str, Any]]] | None = None
    no_copies_reason: str = ""

    def __repr__(self) -> str:
        conditions, samples = self.images.shape[:2]
        return f"GenerationResult({conditions} conditions, {samples} images each, anchor {self.anchor!r})"

    def _repr_html_(self) -> str:
        rows = []
        for condition, samples, near in zip(self.conditions, self.images, self.nearest, strict=True):
            urls = (base64.b64encode(png_bytes(image)).decode("ascii") for image in samples)
            style = "width: 96px; image-rendering: pixelated"
            images = Markup("".join(f'<img src="data:image/png;base64,{url}" style="{style}">' for url in urls))
            rows.append((condition.name, images, f"{near[0]['name']}, cosine {near[0]['cosine']:.2f}"))
        return html_table(rows, head=("condition", "images", "nearest training item"))


def generate_images(
    space: Space,
    decoder: Decoder,
    store: EmbeddingStore,
    conditions: Sequence[Condition],
    *,
    samples: int = 1,
    anchor: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
) -> GenerationResult:
    """Generate `samples` images from each condition; sample v uses the same noise for all conditions."""
    check_integer("samples", samples, low=1, high=64)
    check_integer("seed", seed, low=0)
    if not conditions:
        raise ConfigError("generate_images needs at least one condition; see `build_conditions`")
    anchor = resolve_anchor(space, decoder, anchor)
    z_QD = torch.stack([condition.z_D for condition in conditions])
    options: dict[str, Any] = {"anchor": anchor, "steps": steps, "guidance": guidance}
    # Call once per condition, since row i of every call gets the same noise.
    images_QV = torch.stack(
        [
            torch.cat([decode(space, decoder, z_1D, seed=_sample_seed(seed, v), **options) for v in range(samples)])
            for z_1D in torch.split(z_QD, 1)
        ]
    )
    try:
        copies, reason = _find_pixel_neighbors(store, anchor, images_QV), ""
    except (DataError, MissingDependencyError) as error:
        copies, reason = None, str(error)  # Thumbnails and Pillow are not required.
    return GenerationResult(
        conditions=tuple(conditions),
        images=images_QV,
        anchor=anchor,
        nearest=_list_nearest(space, store, z_QD, anchor),
        true_cosines=[_compute_true_cosine(space, store, condition, anchor) for condition in conditions],
        copies=copies,
        no_copies_reason=reason,
    )


def _sample_seed(seed: int, sample: int) -> int:
    """Hash, so that sample 1 of seed 0 differs from sample 0 of seed 1."""
    return int(np.random.SeedSequence([seed, sample]).generate_state(1)[0])


def _list_nearest(space: Space, store: EmbeddingStore, z_QD: Tensor, anchor: str) -> list[list[dict[str, Any]]]:
    found = nearest_training(space, store, z_QD, anchor=anchor, k=_NEAREST)
    return [
        [{"row": row, "name": store.item_names[row], "cosine": cosine} for row, cosine in zip(*pair, strict=True)]
        for pair in zip(found.rows.tolist(), found.cosines.tolist(), strict=True)
    ]


def _compute_true_cosine(space: Space, store: EmbeddingStore, condition: Condition, anchor: str) -> float | None:
    row = condition.row
    if row is None or not store.present(anchor)[row]:
        return None
    true_D = space.encode({anchor: store.array(anchor)[[row]]})[anchor][0]
    return float(torch.nn.functional.cosine_similarity(condition.z_D.to(true_D), true_D, dim=0))


def _find_pixel_neighbors(store: EmbeddingStore, anchor: str, images_QV: Tensor) -> list[list[dict[str, Any]]]:
    """Find the most similar training images, since decoders trained on few images may memorize them."""
    rows = store.rows("train")
    rows = rows[store.present(anchor)[rows]]
    side = min(images_QV.shape[-1], _COMPARISON_SIDE)
    training_TP = read_thumbnails(store, anchor, rows, side).flatten(1)
    flat = resize(images_QV.flatten(0, 1), side).flatten(1)
    distances, positions = (torch.cdist(flat, training_TP) / math.sqrt(flat.shape[1])).min(1)
    found = [
        {"row": row, "name": store.item_names[row], "distance": distance}
        for row, distance in zip(rows[positions.numpy()].tolist(), distances.tolist(), strict=True)
    ]
    samples = images_QV.shape[1]
    return [found[i : i + samples] for i in range(0, len(found), samples)]
