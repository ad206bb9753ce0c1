"""The plan of a run: the cells of each part, and all facts that determine the bytes of a part.

The n distinct present cells of a column, in order of first appearance, are divided into parts of `part_cells` cells,
and a part into batches of `batch_size` cells. The existing part files are therefore the whole state of a run.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unialign.config import differing_settings
from unialign.io import canonical_json, digest
from unialign.media import Kind, MediaLimits

__all__ = ["ColumnPlan", "EncodingSettings", "Plan", "differences"]

SCHEMA = 1
# Entries of the JSON form that do not affect the bytes of the store. A reference is represented by its fingerprint.
_LEFT_OUT = ("where", "max_broken", "on_broken", "references", "digest")
# Entries of a reference that do not affect the features.
_NOT_FEATURES = ("witness", "stored", "license", "packages", "batch_size", "fingerprint")


@dataclass(frozen=True)
class EncodingSettings:
    """Settings that determine the features of a cell, together with its content and the encoder."""

    batch_size: int
    part_cells: int
    dtype: str
    limits: MediaLimits
    thumbnails: int | None
    hash: bool
    threads: int
    torch: str
    device_type: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ColumnPlan:
    name: str
    media: Kind
    dim: int
    encoder: str
    reference: Mapping[str, Any]
    cells: int
    cells_sha256: str

    def to_json(self) -> dict[str, Any]:
        return {
            "media": self.media,
            "dim": self.dim,
            "encoder": self.encoder,
            "cells": self.cells,
            "cells_sha256": self.cells_sha256,
        }


@dataclass(frozen=True)
class Plan:
    """The same run continues if `max_broken`, `on_broken` or `roots` change."""

    items: str
    rows: int
    columns: Mapping[str, ColumnPlan]
    settings: EncodingSettings
    max_broken: float
    on_broken: str
    roots: tuple[Path, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that determines the bytes of the store."""
        return digest(canonical_json(self._identity))

    def column_digest(self, name: str) -> str:
        """Return the sha256 of everything that determines the bytes of the column's parts."""
        facts = {
            "schema": SCHEMA,
            "name": name,
            "column": self.columns[name].to_json(),
            "settings": self.settings.to_json(),
        }
        return digest(canonical_json(facts))

    def parts(self, name: str) -> int:
        return -(-self.columns[name].cells // self.settings.part_cells)

    def cells_of(self, name: str, part: int) -> range:
        first = part * self.settings.part_cells
        return range(first, min(first + self.settings.part_cells, self.columns[name].cells))

    def batches_of(self, name: str, part: int) -> list[range]:
        cells, size = self.cells_of(name, part), self.settings.batch_size
        return [cells[start : start + size] for start in range(0, len(cells), size)]

    def most_broken(self, name: str) -> int:
        return max(10, int(self.max_broken * self.columns[name].cells))

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "items": self.items,
            "rows": self.rows,
            "columns": {name: column.to_json() for name, column in self.columns.items()},
            "settings": self.settings.to_json(),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            **self._identity,
            "digest": self.digest,
            "max_broken": self.max_broken,
            "on_broken": self.on_broken,
            "where": [str(root) for root in self.roots],
            "references": {name: dict(column.reference) for name, column in self.columns.items()},
        }

    def describe(self) -> dict[str, Any]:
        """Return the provenance of the plan; other entries of the provenance describe the columns."""
        identity = self._identity
        return {"schema": SCHEMA, "digest": self.digest, "settings": identity["settings"]}


def differences(before: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return `NAME: OLD -> NEW` for each entry that differs."""
    body = plan.to_json()
    kept, now = ({key: entry for key, entry in side.items() if key not in _LEFT_OUT} for side in (before, body))
    found = []
    for name, (old, new) in differing_settings(kept, now).items():
        column = name.removeprefix("columns.").removesuffix(".encoder")
        if name == f"columns.{column}.encoder":
            found += _encoder_differences(column, before, body) or [
                f"{_readable(name)}: {_short(old)} -> {_short(new)}"
            ]
        else:
            found.append(f"{_readable(name)}: {_short(old)} -> {_short(new)}")
    return found


def _encoder_differences(column: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    sides = []
    for body in (before, now):
        references = body.get("references")
        reference = references.get(column) if isinstance(references, Mapping) else None
        if not isinstance(reference, Mapping):
            return []
        sides.append({key: entry for key, entry in reference.items() if key not in _NOT_FEATURES})
    changed = differing_settings(sides[0], sides[1])
    return [f"encoder of {column!r}, {name}: {_short(old)} -> {_short(new)}" for name, (old, new) in changed.items()]


def _readable(name: str) -> str:
    group, _, rest = name.partition(".")
    if group == "columns":
        column, dot, entry = rest.rpartition(".")
        return f"{entry} of {column!r}" if dot else f"column {rest!r}"
    return rest if group == "settings" else {"items": "item table", "rows": "number of items"}.get(name, name)


def _short(text: str) -> str:
    is_hash = len(text) == 66 and text[0] == text[-1] == "'"
    return f"{text[1:13]}.." if is_hash else text
