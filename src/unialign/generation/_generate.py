"""What `unialign generate` does: from settings to images, each with what it was made of and what it may be a copy of.

Shapes: `Q` conditions, `V` noises each, `S` pixels a side.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, MissingDependencyError
from unialign.generation._decode import decode, nearest_training, resolve_anchor
from unialign.generation._decoder import Decoder
from unialign.generation._images import read_thumbnails, resize
from unialign.generation._interpolation import interpolate
from unialign.generation._prompts import Mix, item_query, joint_split, mixed, text_query, together
from unialign.space import Space

__all__ = ["Condition", "GenerationResult", "build_conditions", "generate_images"]

_NEAREST = 3
# Pixels a side at which images are compared with training images, at most.
_COMPARED = 64


@dataclass(frozen=True)
class Condition:
    """A row of the space that images are made of, and how it came about.

    Attributes:
        name: for people.
        parts: what was mixed, or the waypoints of a path.
        z_D: the row.
        row: of the store, if it is made of one item; then also the item's split: `train` if one of several is.
        rows: of the store, of all items that it is made of.
    """

    name: str
    parts: tuple[str, ...]
    z_D: Tensor
    row: int | None = None
    split: str | None = None
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class GenerationResult:
    """Attributes:
    conditions: Q of them.
    images: (Q, V, 3, S, S) in [0, 1].
    anchor: the modality in whose place they were decoded.
    nearest: for each condition the training items with the nearest anchor: row, name, cosine.
    truth: for each condition its cosine with the item's own anchor; None where there is none.
    copies: for each condition and sample the training image with the least distance of pixels: row, name, distance
        (root mean square, in [0, 1]); None where the store's images cannot be read.
    not_compared: why `copies` is None, else "".
    """

    conditions: tuple[Condition, ...]
    images: Tensor
    anchor: str
    nearest: list[list[dict[str, Any]]]
    truth: list[float | None]
    copies: list[list[dict[str, Any]]] | None = None
    not_compared: str = ""


def build_conditions(
    space: Space,
    store: EmbeddingStore,
    *,
    items: Sequence[str] = (),
    texts: Sequence[str] = (),
    modalities: Sequence[str] = (),
    mix: Mix = "mean",
    weights: Sequence[float] | None = None,
    combine: str = "each",
    steps: int = 7,
    encode_texts: Any = None,
    text_modality: str = "text",
) -> list[Condition]:
    """The rows of the space that items and texts ask for.

    Args:
        items: names, or `#row`; each through `modalities`, which are mixed.
        texts: new texts, encoded by `encode_texts` as features of `text_modality`.
        mix, weights: as in `mixed`; weights go with the parts of one condition. A strip has neither.
        combine: `each` item and text is a condition; `together`, all are one; `strip`, a path of `steps` conditions
            that leads through all of them, an item's modalities one by one.
        steps: of a strip, one for each of these at least.

    Raises:
        ConfigError: nothing is asked for, or an item, modality or weight that there is not.
    """
    check_choice("combine", combine, ("each", "together", "strip"))
    for what, words in (("items", items), ("texts", texts)):
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{what} must be a list of strings, got {words!r}")
    if weights is not None and not isinstance(weights, Sequence):
        raise ConfigError(f"weights must be a list of numbers, got {weights!r}")
    if texts and encode_texts is None:
        raise ConfigError("texts need encode_texts=, such as unialign.encoders.text_encoder(store)")
    if not items and not texts:
        raise ConfigError("ask for something: items of the store (items=, --item), or new texts (texts=, --text)")
    queries = [item_query(space, store, item, modalities) for item in items]
    queries += [text_query(space, store, encode_texts, text, modality=text_modality) for text in texts]
    if combine == "together":
        queries = [together(queries)]
    if combine != "strip":
        z_QD = [mixed(query, mix=mix, weights=weights) for query in queries]  # before their shares are named: it checks
        return [
            Condition(query.name, _weighed(query.parts, weights), z_D, query.row, query.split, query.rows)
            for query, z_D in zip(queries, z_QD, strict=True)
        ]
    if weights is not None or mix != "mean":
        raise ConfigError("a strip follows arcs: it has no weights and no mix; leave both out")
    # One item through one modality is a waypoint; through several, a path of its own.
    stops = [(label, z_D) for query in queries for label, z_D in query.parts.items()]
    if len(stops) < 2:
        raise ConfigError("a strip leads from one thing to another; name two texts, two items, or two modalities")
    if steps < len(stops):
        named = ", ".join(label for label, _ in stops)
        raise ConfigError(
            f"a strip of {steps} steps cannot lead through {len(stops)} things ({named}); take at least {len(stops)} "
            f"steps, or fewer things"
        )
    path_TD = interpolate(torch.stack([z_D for _, z_D in stops]), steps=steps)
    labels = tuple(label for label, _ in stops)
    row = queries[0].row if len(queries) == 1 else None
    rows = tuple(dict.fromkeys(row for query in queries for row in query.rows))  # a path may come back
    split = joint_split(query.split for query in queries)
    return [Condition(_place(labels, step, steps), labels, z_D, row, split, rows) for step, z_D in enumerate(path_TD)]


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
    """Decode conditions with `samples` noises each; noise v is the same for every condition."""
    check_integer("samples", samples, low=1, high=64)
    check_integer("seed", seed, low=0)
    if not conditions:
        raise ConfigError("images need at least one condition; see `build_conditions`")
    anchor = resolve_anchor(space, decoder, anchor)
    z_QD = torch.stack([condition.z_D for condition in conditions])
    rows = [z_QD[i : i + 1] for i in range(len(z_QD))]
    images = []
    for noise in range(samples):
        # One call a condition: row 0 of a call has the same noise in each, so that only the condition differs.
        options: Mapping[str, Any] = {"seed": _seed(seed, noise), "steps": steps, "guidance": guidance}
        images.append(torch.cat([decode(space, decoder, z_1D, anchor=anchor, **options) for z_1D in rows]))
    found = nearest_training(space, store, z_QD, anchor=anchor, k=_NEAREST)
    names = store.item_names
    nearest = [
        [
            {"row": int(row), "name": names[int(row)], "cosine": float(cosine)}
            for row, cosine in zip(rows, cosines, strict=True)
        ]
        for rows, cosines in zip(found.rows, found.cosines, strict=True)
    ]
    made_QV = torch.stack(images, 1)
    truth = _truth(space, store, conditions, anchor)
    try:
        copies, reason = _copies(store, anchor, made_QV), ""
    except (DataError, MissingDependencyError) as error:
        copies, reason = None, str(error)  # images are made without them, and on the core install
    return GenerationResult(tuple(conditions), made_QV, anchor, nearest, truth, copies, reason)


def _copies(store: EmbeddingStore, anchor: str, images: Tensor) -> list[list[dict[str, Any]]]:
    """What each sample may be a copy of: a decoder of few images has them by heart."""
    rows = store.rows("train")
    rows = rows[store.present(anchor)[rows]]
    # Large images are compared as small ones: all training images at 768 pixels would not fit into the memory.
    side = min(images.shape[-1], _COMPARED)
    training_TP = read_thumbnails(store, anchor, rows, side).flatten(1)
    flat = resize(images.flatten(0, 1), side).flatten(1)
    distance, place = (torch.cdist(flat, training_TP) / math.sqrt(flat.shape[1])).min(1)
    found = [
        {"row": int(rows[i]), "name": store.item_names[int(rows[i])], "distance": float(d)}
        for i, d in zip(place.tolist(), distance, strict=True)
    ]
    samples = images.shape[1]
    return [found[i : i + samples] for i in range(0, len(found), samples)]


def _weighed(parts: Iterable[str], weights: Sequence[float] | None) -> tuple[str, ...]:
    """Names of parts, with their shares where they are not alike."""
    if weights is None:
        return tuple(parts)
    whole = sum(weights)
    return tuple(f"{part} ({100 * weight / whole:.0f} %)" for part, weight in zip(parts, weights, strict=True))


def _seed(seed: int, noise: int) -> int:
    """Sample 1 of seed 0 must not be sample 0 of seed 1."""
    return int(np.random.SeedSequence([seed, noise]).generate_state(1)[0])


def _truth(space: Space, store: EmbeddingStore, conditions: Sequence[Condition], anchor: str) -> list[float | None]:
    found: list[float | None] = []
    for condition in conditions:
        row = condition.row
        if row is None or not store.present(anchor)[row]:
            found.append(None)
            continue
        true_D = space.encode({anchor: store.array(anchor)[[row]]})[anchor][0]
        found.append(float(torch.nn.functional.cosine_similarity(condition.z_D.to(true_D), true_D, dim=0)))
    return found


def _place(labels: Sequence[str], step: int, steps: int) -> str:
    """Where on the path a step is, such as `text 60 %, speech 40 %`."""
    place = step * (len(labels) - 1) / (steps - 1)
    leg = min(int(place), len(labels) - 2)
    share = round(100 * (place - leg))
    if share in (0, 100):
        return labels[leg + share // 100]
    return f"{labels[leg]} {100 - share} %, {labels[leg + 1]} {share} %"
