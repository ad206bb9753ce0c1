"""What is asked for: items of a store by some of their modalities, new texts, and mixtures of them.

Shapes: `K` parts of a query, `D` width of the space.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unialign._checks import check_choice
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.generation._decode import embed_items
from unialign.generation._interpolation import frechet_mean, mean
from unialign.space import Space

__all__ = ["Mix", "Query", "find_item", "item_query", "mixed", "text_query", "together"]

Mix = Literal["mean", "unnormalized_mean", "barycentre"]


@dataclass(frozen=True)
class Query:
    """An image to be made.

    Attributes:
        name: for people.
        parts: what it is made of, such as `drawing of hedgehog` -> (D,) unit row.
        row: the item of the store, None for a text or a mixture of several items.
        split: of that item; of several, `train` if one of them is in it.
        rows: of all items.
    """

    name: str
    parts: Mapping[str, Tensor]
    row: int | None = None
    split: str | None = None
    rows: tuple[int, ...] = ()


def find_item(store: EmbeddingStore, item: str) -> int:
    """The row of an item by its name, in any case, or `#17` for row 17.

    Raises:
        ConfigError: no such item (the message suggests some), or several of that name.
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
        raise ConfigError(f"{len(rows)} items of {store.name!r} are named {item!r}; say which: {_rows(rows)}")
    close = difflib.get_close_matches(item.casefold(), names, n=3) or [n for n in names if item.casefold() in n][:3]
    hint = f"did you mean {', '.join(map(repr, close))}?" if close else "items may also be named by row, such as '#17'"
    raise ConfigError(f"{store.name!r} has no item {item!r}; {hint}")


def item_query(space: Space, store: EmbeddingStore, item: str, modalities: Sequence[str]) -> Query:
    """An item through some of its modalities; those that it lacks are left out.

    Raises:
        ConfigError: no such item or modality.
        DataError: the item has none of the modalities.
    """
    row = find_item(store, item)
    name = store.item_names[row]
    z, present = embed_items(space, store, [row], modalities)
    twins = [other.strip().casefold() for other in store.item_names].count(name.strip().casefold()) > 1
    called = f"{name} (#{row})" if twins else name
    parts = {f"{modality} of {called}": z[modality][0] for modality in modalities if bool(present[modality][0])}
    if not parts:
        raise DataError(f"item {name!r} (row {row}) has none of {', '.join(modalities)}; ask for another modality")
    split = ("train", "val", "test")[int(store.split[row])]
    return Query(name, parts, row=row, split=split, rows=(row,))


def text_query(
    space: Space,
    store: EmbeddingStore,
    encode: Callable[[Sequence[str]], Tensor],
    text: str,
    *,
    modality: str = "text",
) -> Query:
    """A text through the encoder of the store's column `modality`; one that names an item of the store is not new."""
    z_1D = space.encode({modality: encode([text])})[modality]
    if len(z_1D) != 1:
        raise ShapeError(f"encode_texts gave {len(z_1D)} rows for one text; expected one row a text")
    named = [row for row, name in enumerate(store.item_names) if name.casefold() == text.strip().casefold()]
    splits = [("train", "val", "test")[int(store.split[row])] for row in named]
    return Query(text, {f"text “{text}”": z_1D[0]}, split=joint_split(splits))


def together(queries: Sequence[Query]) -> Query:
    """One query of the parts of several.

    Raises:
        ConfigError: the same part twice, which would count once.
    """
    if len(queries) == 1:
        return queries[0]
    labels = [label for query in queries for label in query.parts]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"{twice[0]} is asked for twice; name it once, and weigh it with weights")
    parts = {label: z for query in queries for label, z in query.parts.items()}
    rows = tuple(row for query in queries for row in query.rows)
    split = joint_split(query.split for query in queries)
    return Query(" + ".join(query.name for query in queries), parts, split=split, rows=rows)


def joint_split(splits: Iterable[str | None]) -> str | None:
    """Of several items: one training item is enough for a decoder to know the answer in part."""
    known = [split for split in splits if split]
    return "train" if "train" in known else next(iter(known), None)


def mixed(query: Query, *, mix: Mix = "mean", weights: Sequence[float] | None = None) -> Tensor:
    """(D,) the mixture of a query's parts.

    Args:
        mix: `mean`, renormalised; `unnormalized_mean` as the paper has it, shorter than 1, which only decoders that read
            lengths can tell from it; `barycentre`, the point of the sphere with the least squared angles.
        weights: one for each part.
    """
    check_choice("mix", mix, ("mean", "unnormalized_mean", "barycentre"))
    rows = [z[None] for z in query.parts.values()]
    if weights is not None and len(weights) != len(rows):
        raise ConfigError(f"{len(weights)} weights for {len(rows)} parts ({', '.join(query.parts)}); give one for each")
    if mix == "barycentre":
        return frechet_mean(rows, weights=weights)[0]
    return mean(rows, weights=weights, lengths="unit" if mix == "mean" else "kept")[0]


def _rows(rows: Sequence[int]) -> str:
    return ", ".join(f"#{row}" for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
