"""Build conditions for image generation: one per item or text, a mixture of all, or a path through all.

Shapes: `D` dimension of the space, `T` steps of a path.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, suggestion
from unialign.config import Mix
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.generation._decode import embed_items
from unialign.generation._interpolation import frechet_mean, interpolate, mean
from unialign.space import Space

Combine = Literal["each", "mixture", "path"]
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Condition:
    """A row of the space on which image generation is conditioned, with the items or texts of this row.

    Attributes:
        name: display name.
        parts: labels of the parts of a mixture, or of the waypoints of a path.
        z_D: row of the space, of shape (D,).
        row: store row of the item; None unless the condition comes from a single item.
        split: split of the item; for several items, `train` if any of them is a training item.
        rows: store rows of all items of the condition.
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
    """Build conditions from items of a store and new texts.

    Args:
        items: names, or row numbers such as `#17`; each item is embedded from each of `modalities`.
        texts: new texts, encoded by `encode_texts` as features of `text_modality`.
        mix: `mean` is renormalized; `unnormalized_mean`, used in the paper, has norm below 1, which affects only
            decoders that are not scale-invariant; `frechet_mean` minimizes the sum of squared angles.
        weights: one weight for each part of a mixture. A path accepts neither `weights` nor `mix`.
        combine: `each` returns one condition per item or text, a mixture of the parts of this item or text; `mixture`
            returns a single mixture of all parts; `path` returns `steps` conditions on arcs through all parts, with the
            modalities of an item in sequence.
        steps: number T of conditions on a path, at least the number of parts.

    Raises:
        ConfigError: there is neither an item nor a text, an item or modality is unknown, or weights or steps are
            invalid.
    """
    check_choice("combine", combine, get_args(Combine))
    for option, words in (("items", items), ("texts", texts)):
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{option} must be a list of strings, got {words!r}")
    if weights is not None and not isinstance(weights, Sequence):
        raise ConfigError(f"weights must be a list of numbers, got {weights!r}")
    if not items and not texts:
        raise ConfigError("nothing to generate: pass items of the store (items=, --item) or new texts (texts=, --text)")
    prompts = [_item_prompt(space, store, item, modalities) for item in items]
    if texts:
        if encode_texts is None:
            raise ConfigError("texts need encode_texts=, such as unialign.encoders.text_encoder(store)")
        prompts += [_text_prompt(space, store, encode_texts, text, text_modality) for text in texts]
    if combine == "path":
        if weights is not None or mix != "mean":
            raise ConfigError("a path accepts neither weights nor mix; omit both")
        return _make_path(prompts, steps)
    groups = [prompts] if combine == "mixture" else [[prompt] for prompt in prompts]
    return [_make_mixture(group, mix, weights) for group in groups]


def find_item(store: EmbeddingStore, item: str) -> int:
    """Return the row of an item; `item` is a case-insensitive name, or a row number such as `#17`."""
    names = [name.strip().casefold() for name in store.item_names]
    rows = [row for row, name in enumerate(names) if name == item.strip().casefold()]
    if len(rows) == 1:
        return rows[0]
    if item.startswith("#") and item[1:].isdecimal():
        row = int(item[1:])
        if row >= store.items:
            raise ConfigError(f"item {item} does not exist; {store.name!r} has rows #0 to #{store.items - 1}")
        return row
    if rows:
        listed = ", ".join(f"#{row}" for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise ConfigError(f"{len(rows)} items of {store.name!r} are named {item!r}; choose one by row: {listed}")
    hint = suggestion(item.casefold(), names, otherwise="an item can also be given by row, such as '#17'")
    raise ConfigError(f"{store.name!r} has no item {item!r}{hint}")


@dataclass(frozen=True)
class _Prompt:
    name: str
    parts: dict[str, Tensor]
    rows: tuple[int, ...]
    split: str | None


def _item_prompt(space: Space, store: EmbeddingStore, item: str, modalities: Sequence[str]) -> _Prompt:
    row = find_item(store, item)
    name = store.item_names[row]
    z, present = embed_items(space, store, [row], modalities)
    ambiguous = [other.strip().casefold() for other in store.item_names].count(name.strip().casefold()) > 1
    label = f"{name} (#{row})" if ambiguous else name
    parts = {f"{modality} of {label}": z[modality][0] for modality in modalities if bool(present[modality][0])}
    if not parts:
        raise DataError(f"item {name!r} (row {row}) has none of {', '.join(modalities)}; choose another modality")
    return _Prompt(name, parts, (row,), _SPLITS[int(store.split[row])])


def _text_prompt(
    space: Space, store: EmbeddingStore, encode: Callable[[Sequence[str]], Tensor], text: str, modality: str
) -> _Prompt:
    """Embed a new text, which gets the split of the items with the same name."""
    z_1D = space.encode({modality: encode([text])})[modality]
    if len(z_1D) != 1:
        raise ShapeError(f"encode_texts returned {len(z_1D)} rows for one text; expected one row per text")
    rows = [row for row, name in enumerate(store.item_names) if name.casefold() == text.strip().casefold()]
    return _Prompt(text, {f"text “{text}”": z_1D[0]}, (), _join_splits(_SPLITS[int(store.split[row])] for row in rows))


def _make_mixture(prompts: Sequence[_Prompt], mix: Mix, weights: Sequence[float] | None) -> Condition:
    check_choice("mix", mix, get_args(Mix))
    labels, rows = _collect_parts(prompts)
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"{repeated[0]} is given twice; give it once, and use weights")
    if weights is not None and len(weights) != len(rows):
        raise ConfigError(f"expected one weight for each of {', '.join(labels)}, got {len(weights)}")
    if mix == "frechet_mean":
        z_1D = frechet_mean(rows, weights=weights)
    else:
        z_1D = mean(rows, weights=weights, normalize=mix == "mean")
    if weights is not None:
        total = sum(weights)
        labels = [f"{label} ({100 * weight / total:.0f} %)" for label, weight in zip(labels, weights, strict=True)]
    return _make_condition(prompts, " + ".join(prompt.name for prompt in prompts), labels, z_1D[0])


def _make_path(prompts: Sequence[_Prompt], steps: int) -> list[Condition]:
    labels, rows = _collect_parts(prompts)
    if len(labels) < 2:
        raise ConfigError("a path needs at least two waypoints: two texts, two items, or two modalities")
    if steps < len(labels):
        raise ConfigError(
            f"a path of {steps} steps cannot contain {len(labels)} waypoints ({', '.join(labels)}); use at least "
            f"{len(labels)} steps, or fewer waypoints"
        )
    path_TD = interpolate(torch.cat(rows), steps=steps)
    return [
        _make_condition(prompts, _describe_step(labels, step, steps), labels, z_D) for step, z_D in enumerate(path_TD)
    ]


def _collect_parts(prompts: Sequence[_Prompt]) -> tuple[list[str], list[Tensor]]:
    parts = [(label, z_D[None]) for prompt in prompts for label, z_D in prompt.parts.items()]
    return [label for label, _ in parts], [z_1D for _, z_1D in parts]


def _make_condition(prompts: Sequence[_Prompt], name: str, labels: Sequence[str], z_D: Tensor) -> Condition:
    rows = tuple(dict.fromkeys(row for prompt in prompts for row in prompt.rows))  # A path may contain an item twice.
    row = rows[0] if rows and len(prompts) == 1 else None
    return Condition(name, tuple(labels), z_D, row, _join_splits(prompt.split for prompt in prompts), rows)


def _join_splits(splits: Iterable[str | None]) -> str | None:
    """Return `train` if it occurs, since the decoder was trained on its items."""
    known = [split for split in splits if split]
    return "train" if "train" in known else next(iter(known), None)


def _describe_step(labels: Sequence[str], step: int, steps: int) -> str:
    """Return a text such as `text 60 %, speech 40 %`."""
    position = step * (len(labels) - 1) / (steps - 1)
    leg = min(int(position), len(labels) - 2)
    percent = round(100 * (position - leg))
    if percent in (0, 100):
        return labels[leg + percent // 100]
    return f"{labels[leg]} {100 - percent} %, {labels[leg + 1]} {percent} %"
