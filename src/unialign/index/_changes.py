"""Collect changes of items until they are committed.

Shapes: `B` items of a block, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ConfigError
from unialign.index._catalog import NewItems
from unialign.index._previews import Preview
from unialign.index._snapshot import Part

# Maximum number of items per part, so that a compaction rewrites a bounded amount of data.
MOST_ITEMS = 1 << 18


@dataclass
class Block:
    """Items to add.

    Attributes:
        keys: B unique keys.
        rows: modality -> (B, D) float32 unit rows; absent rows may have any values.
        present: modality -> (B,) bool.
        names, labels, metadata, previews, payloads: as in `NewItems`.
    """

    keys: list[str]
    rows: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.bool_]]
    names: list[str | None] | None = None
    labels: list[str | None] | None = None
    metadata: list[Mapping[str, Any] | None] | None = None
    previews: list[Mapping[str, Preview] | None] | None = None
    payloads: list[int | None] | None = None

    def take(self, places: NDArray[np.int64]) -> "Block":
        """Return some of the items."""
        if len(places) == len(self.keys):
            return self

        def chosen(values: list[Any] | None) -> list[Any] | None:
            return None if values is None else [values[place] for place in places]

        return Block(
            [self.keys[place] for place in places],
            {name: rows[places] for name, rows in self.rows.items()},
            {name: mask[places] for name, mask in self.present.items()},
            chosen(self.names),
            chosen(self.labels),
            chosen(self.metadata),
            chosen(self.previews),
            chosen(self.payloads),
        )


@dataclass
class Pending:
    """Changes that are not committed.

    Attributes:
        blocks: items to add, later ones last.
        places: key -> (block, place) of the items to add.
        dropped: block -> places that a later change replaced or deleted.
        removed: key -> id of the stored items to remove.
        added, replaced, deleted: numbers of items, for the commit.
    """

    blocks: list[Block] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    dropped: dict[int, set[int]] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    added: int = 0
    replaced: int = 0
    deleted: int = 0

    def __bool__(self) -> bool:
        return bool(self.places or self.removed)

    def add(self, block: Block) -> None:
        """Add a block whose keys do not exist, or were removed before."""
        number = len(self.blocks)
        self.blocks.append(block)
        self.places.update((key, (number, place)) for place, key in enumerate(block.keys))

    def drop(self, key: str) -> None:
        """Discard an item of an earlier block."""
        number, place = self.places.pop(key)
        self.dropped.setdefault(number, set()).add(place)

    def item(self, key: str) -> Block | None:
        """Return an item of an earlier block."""
        if key not in self.places:
            return None
        number, place = self.places[key]
        return self.blocks[number].take(np.array([place]))

    def merged(self, modalities: Sequence[str]) -> list[Block]:
        """Return the remaining items in blocks of at most `MOST_ITEMS`, each of which becomes a part."""
        kept: list[Block] = []
        for number, block in enumerate(self.blocks):
            gone = self.dropped.get(number, set())
            block = (
                block.take(np.array([p for p in range(len(block.keys)) if p not in gone], np.int64)) if gone else block
            )
            for start in range(0, len(block.keys), MOST_ITEMS):
                kept.append(block.take(np.arange(start, min(start + MOST_ITEMS, len(block.keys)))))
        groups: list[list[Block]] = []
        for block in kept:
            if groups and sum(len(one.keys) for one in groups[-1]) + len(block.keys) <= MOST_ITEMS:
                groups[-1].append(block)
            else:
                groups.append([block])
        return [_joined(group, modalities) for group in groups]


def to_part(block: Block, number: int, modalities: Sequence[str]) -> Part:
    """Return the arrays of a block; rows of absent items are left out."""
    rows: dict[str, Any] = {}
    places: dict[str, Any] = {}
    for name in modalities:
        if name not in block.rows or not block.present[name].any():
            continue
        mask_B = block.present[name]
        complete = bool(mask_B.all())
        rows[name] = np.ascontiguousarray(block.rows[name] if complete else block.rows[name][mask_B], np.float32)
        places[name] = None if complete else np.flatnonzero(mask_B).astype(np.int32)
    return Part(number, len(block.keys), rows, places)


def to_items(block: Block, modalities: Sequence[str]) -> NewItems:
    """Return the catalog's description of a block."""
    bits = np.zeros(len(block.keys), np.int64)
    for bit, name in enumerate(modalities):
        if name in block.present:
            bits |= block.present[name].astype(np.int64) << bit
    if not bits.all():
        raise ConfigError(f"the item {block.keys[int(np.argmin(bits != 0))]!r} has no modality; leave it out")
    return NewItems(block.keys, bits, block.names, block.labels, block.metadata, block.previews, block.payloads)


def _joined(blocks: list[Block], modalities: Sequence[str]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    dim = next(rows.shape[1] for block in blocks for rows in block.rows.values())

    def rows_of(block: Block, name: str) -> NDArray[np.float32]:
        return block.rows.get(name, np.zeros((len(block.keys), dim), np.float32))

    def mask_of(block: Block, name: str) -> NDArray[np.bool_]:
        return block.present.get(name, np.zeros(len(block.keys), np.bool_))

    def listed(attribute: str) -> list[Any] | None:
        if all(getattr(block, attribute) is None for block in blocks):
            return None
        return [value for block in blocks for value in getattr(block, attribute) or [None] * len(block.keys)]

    return Block(
        [key for block in blocks for key in block.keys],
        {name: np.concatenate([rows_of(block, name) for block in blocks]) for name in modalities},
        {name: np.concatenate([mask_of(block, name) for block in blocks]) for name in modalities},
        *(listed(attribute) for attribute in ("names", "labels", "metadata", "previews", "payloads")),
    )
