"""Build conditions: rows of a space from prompts, one for each prompt, one mixture, or a path through all.

Shapes: `D` dimension of the space, `T` steps of a path.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign.config import Mix
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.generation._interpolation import frechet_mean, interpolate, mean
from unialign.generation._prompts import Prompt, item_prompt, joint_split, merge_prompts, text_prompt
from unialign.space import Space

__all__ = ["Combine", "Condition", "build_conditions", "mix_parts"]

Combine = Literal["each", "mixture", "path"]


@dataclass(frozen=True)
class Condition:
    """A row of the space from which images are generated, and its origin.

    Attributes:
        name: for display.
        parts: labels of the mixed parts, or of the waypoints of a path.
        z_D: the row.
        row: row of the store, if the condition comes from one item.
        split: split of that item; of several items, `train` if any of them is in it.
        rows: store rows of all its items.
    """

    name: str
    parts: tuple[str, ...]
    z_D: Tensor
    row: int | None = None
    split: str | None = None
    rows: tuple[int, ...] = ()


def build_conditions(
    space: Space,
    store: EmbeddingStore,
    *,
    items: Sequence[str] = (),
    texts: Sequence[str] = (),
    modalities: Sequence[str] = (),
    mix: Mix = "mean",
    weights: Sequence[float] | None = None,
    combine: Combine = "each",
    steps: int = 7,
    encode_texts: Callable[[Sequence[str]], Tensor] | None = None,
    text_modality: str = "text",
) -> list[Condition]:
    """Build the conditions of items and texts.

    Args:
        items: names, or `#row`; each is embedded in `modalities`, which are mixed.
        texts: new texts, encoded by `encode_texts` as features of `text_modality`.
        mix, weights: as in `mix_parts`; not allowed for a path.
        combine: `each` returns one condition per item or text; `mixture` a single one of all; `path` returns `steps`
            conditions on arcs through all parts, with the modalities of an item in sequence.
        steps: T of a path, at least the number of parts.

    Raises:
        ConfigError: no item and no text, or an unknown item or modality, or invalid weights or steps.
    """
    check_choice("combine", combine, get_args(Combine))
    for option, words in (("items", items), ("texts", texts)):
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{option} must be a list of strings, got {words!r}")
    if weights is not None and not isinstance(weights, Sequence):
        raise ConfigError(f"weights must be a list of numbers, got {weights!r}")
    if not items and not texts:
        raise ConfigError("nothing to generate: pass items of the store (items=, --item) or new texts (texts=, --text)")
    prompts = [item_prompt(space, store, item, modalities) for item in items]
    if texts:
        if encode_texts is None:
            raise ConfigError("texts need encode_texts=, such as unialign.encoders.text_encoder(store)")
        prompts += [text_prompt(space, store, encode_texts, text, modality=text_modality) for text in texts]
    if combine == "path":
        if weights is not None or mix != "mean":
            raise ConfigError("a path has no weights and no mix; leave both out")
        return _path(prompts, steps)
    if combine == "mixture":
        prompts = [merge_prompts(prompts)]
    return [_mixture(prompt, mix, weights) for prompt in prompts]


def mix_parts(prompt: Prompt, *, mix: Mix = "mean", weights: Sequence[float] | None = None) -> Tensor:
    """Mix the parts of a prompt into one row, (D,).

    Args:
        mix: `mean` is renormalized; `unnormalized_mean` is the paper's, has norm below 1, and matters only for decoders
            that are not scale-invariant; `frechet_mean` minimizes the sum of squared angles.
        weights: one for each part.
    """
    check_choice("mix", mix, get_args(Mix))
    rows = [z[None] for z in prompt.parts.values()]
    if weights is not None and len(weights) != len(rows):
        raise ConfigError(
            f"{len(weights)} weights for {len(rows)} parts ({', '.join(prompt.parts)}); pass one for each part"
        )
    if mix == "frechet_mean":
        return frechet_mean(rows, weights=weights)[0]
    return mean(rows, weights=weights, normalize=mix == "mean")[0]


def _mixture(prompt: Prompt, mix: Mix, weights: Sequence[float] | None) -> Condition:
    z_D = mix_parts(prompt, mix=mix, weights=weights)
    return Condition(prompt.name, _weighted_labels(prompt.parts, weights), z_D, prompt.row, prompt.split, prompt.rows)


def _path(prompts: Sequence[Prompt], steps: int) -> list[Condition]:
    waypoints = [(label, z_D) for prompt in prompts for label, z_D in prompt.parts.items()]
    labels = tuple(label for label, _ in waypoints)
    if len(labels) < 2:
        raise ConfigError("a path needs at least two waypoints: two texts, two items, or two modalities")
    if steps < len(labels):
        raise ConfigError(
            f"a path of {steps} steps cannot lead through {len(labels)} waypoints ({', '.join(labels)}); use at least "
            f"{len(labels)} steps, or fewer waypoints"
        )
    path_TD = interpolate(torch.stack([z_D for _, z_D in waypoints]), steps=steps)
    row = prompts[0].row if len(prompts) == 1 else None
    rows = tuple(dict.fromkeys(row for prompt in prompts for row in prompt.rows))  # a path may visit an item twice
    split = joint_split(prompt.split for prompt in prompts)
    return [
        Condition(_step_label(labels, step, steps), labels, z_D, row, split, rows) for step, z_D in enumerate(path_TD)
    ]


def _weighted_labels(labels: Iterable[str], weights: Sequence[float] | None) -> tuple[str, ...]:
    """Add percentages to labels if there are weights."""
    if weights is None:
        return tuple(labels)
    total = sum(weights)
    return tuple(f"{label} ({100 * weight / total:.0f} %)" for label, weight in zip(labels, weights, strict=True))


def _step_label(labels: Sequence[str], step: int, steps: int) -> str:
    """Describe the position of a step on the path, such as `text 60 %, speech 40 %`."""
    position = step * (len(labels) - 1) / (steps - 1)
    leg = min(int(position), len(labels) - 2)
    percent = round(100 * (position - leg))
    if percent in (0, 100):
        return labels[leg + percent // 100]
    return f"{labels[leg]} {100 - percent} %, {labels[leg + 1]} {percent} %"
