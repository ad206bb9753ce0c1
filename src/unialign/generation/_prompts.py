"""Prompts: items of a store through some of their modalities, new texts, and combinations of both.

Shapes: `D` dimension of the space.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.generation._decode import embed_items
from unialign.space import Space

__all__ = ["Prompt", "find_item", "item_prompt", "joint_split", "merge_prompts", "text_prompt"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Prompt:
    """Named parts from which one or more images are generated.

    Attributes:
        name: for display.
        parts: label such as `drawing of hedgehog` -> (D,) unit row.
        row: row of the store; None for a text or several items.
        split: split of that item; of several items, `train` if any of them is in it.
        rows: store rows of all items.
    """

    name: str
    parts: Mapping[str, Tensor]
    row: int | None = None
    split: str | None = None
    rows: tuple[int, ...] = ()


def find_item(store: EmbeddingStore, item: str) -> int:
    """Find the row of an item by its name (ignoring case), or by `#17` for row 17.

    Raises:
        ConfigError: no such item (the message suggests similar names), or several items of that name.
    """
    names = [name.strip().casefold() for name in store.item_names]
    rows = [row for row, name in enumerate(names) if name == item.strip().casefold()]
    if len(rows) == 1:
        return rows[0]
    if item.startswith("#") and item[1:].isdecimal():
        row = int(item[1:])
        if row >= store.items:
            raise ConfigError(f"item {item}: {store.name!r} has rows #0 to #{store.items - 1}")
        return row
    if rows:
        listed = ", ".join(f"#{row}" for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise ConfigError(f"{len(rows)} items of {store.name!r} are named {item!r}; choose one by row: {listed}")
    close = difflib.get_close_matches(item.casefold(), names, n=3) or [n for n in names if item.casefold() in n][:3]
    hint = f"did you mean {', '.join(map(repr, close))}?" if close else "items may also be named by row, such as '#17'"
    raise ConfigError(f"{store.name!r} has no item {item!r}; {hint}")


def item_prompt(space: Space, store: EmbeddingStore, item: str, modalities: Sequence[str]) -> Prompt:
    """Embed an item in the given modalities; absent ones are left out.

    Raises:
        ConfigError: no such item or modality.
        DataError: the item has none of the modalities.
    """
    row = find_item(store, item)
    name = store.item_names[row]
    z, present = embed_items(space, store, [row], modalities)
    ambiguous = [other.strip().casefold() for other in store.item_names].count(name.strip().casefold()) > 1
    label = f"{name} (#{row})" if ambiguous else name
    parts = {f"{modality} of {label}": z[modality][0] for modality in modalities if bool(present[modality][0])}
    if not parts:
        raise DataError(f"item {name!r} (row {row}) has none of {', '.join(modalities)}; choose another modality")
    return Prompt(name, parts, row=row, split=_SPLITS[int(store.split[row])], rows=(row,))


def text_prompt(
    space: Space, store: EmbeddingStore, encode: Callable[[Sequence[str]], Tensor], text: str, *, modality: str = "text"
) -> Prompt:
    """Embed a text with the encoder of the store's column `modality`; its split is that of items with the same name."""
    z_1D = space.encode({modality: encode([text])})[modality]
    if len(z_1D) != 1:
        raise ShapeError(f"encode_texts returned {len(z_1D)} rows for one text; expected one row for each text")
    rows = [row for row, name in enumerate(store.item_names) if name.casefold() == text.strip().casefold()]
    return Prompt(text, {f"text “{text}”": z_1D[0]}, split=joint_split(_SPLITS[int(store.split[row])] for row in rows))


def merge_prompts(prompts: Sequence[Prompt]) -> Prompt:
    """Merge the parts of several prompts into one.

    Raises:
        ConfigError: a part occurs twice.
    """
    if len(prompts) == 1:
        return prompts[0]
    labels = [label for prompt in prompts for label in prompt.parts]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ConfigError(f"{repeated[0]} is requested twice; name it once, and use weights")
    parts = {label: z for prompt in prompts for label, z in prompt.parts.items()}
    rows = tuple(row for prompt in prompts for row in prompt.rows)
    split = joint_split(prompt.split for prompt in prompts)
    return Prompt(" + ".join(prompt.name for prompt in prompts), parts, split=split, rows=rows)


def joint_split(splits: Iterable[str | None]) -> str | None:
    """Return `train` if any item is in it, since the decoder was trained on its image; else the first known split."""
    known = [split for split in splits if split]
    return "train" if "train" in known else next(iter(known), None)
