"""Prepare inputs of the reference implementations: unit rows per modality, with None for absent items."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["Ids", "Presence", "Rows", "both", "mean", "pairs_of", "tuple_of", "unit_rows"]

Rows = dict[str, list[Tensor | None]]
Presence = Mapping[str, Tensor] | None
Ids = Sequence[int] | None


def unit_rows(embeddings: Mapping[str, Tensor], present: Presence = None) -> Rows:
    """Return the rows of tensors of shape (B, D), normalized in float64, with None for absent rows."""
    rows: Rows = {}
    for m, z_BD in embeddings.items():
        mask = [True] * len(z_BD) if present is None or m not in present else present[m].tolist()
        z_BD = z_BD.double()
        rows[m] = [z_BD[i] / z_BD[i].norm() if mask[i] else None for i in range(len(z_BD))]
    return rows


def tuple_of(rows: Rows, i: int) -> list[Tensor]:
    """Return the present vectors of item i."""
    return [x for x in (rows[m][i] for m in rows) if x is not None]


def pairs_of(rows: Rows, anchor: str) -> list[tuple[str, str]]:
    """Return the pairs of modalities with the anchor, or all pairs for "all"."""
    names = list(rows)
    ordered = [(m, n) for m in names for n in names if names.index(m) < names.index(n)]
    return [(m, n) for m, n in ordered if anchor in ("all", m, n)]


def both(rows: Rows, m: str, n: str) -> list[tuple[int, Tensor, Tensor]]:
    """Return (item, row of m, row of n) for each item that has both modalities."""
    paired = enumerate(zip(rows[m], rows[n], strict=True))
    return [(i, x, y) for i, (x, y) in paired if x is not None and y is not None]


def mean(values: Sequence[Tensor]) -> Tensor:
    """Return the mean, or 0 for an empty list."""
    return torch.stack(list(values)).mean() if values else torch.zeros((), dtype=torch.float64)
