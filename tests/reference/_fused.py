"""Implement the fused term and the prefixes of embeddings.

Shapes: `D` dim, `d` length of a prefix.
"""

from itertools import combinations

import torch
from torch import Tensor

from reference._core import symmetric_contrast
from reference._rows import Ids, Rows, mean

__all__ = ["fused_term", "prefixes"]


def prefixes(rows: Rows, dim: int) -> Rows:
    """Return the first `dim` dimensions of each row, normalized again."""
    return {m: [None if x is None else x[:dim] / x[:dim].norm() for x in column] for m, column in rows.items()}


def fused_term(rows: Rows, *, subsets: str, form: str, tau: float | Tensor, ids: Ids = None) -> Tensor:
    """Return the mean of the fused term over subsets S and targets m; 0 without items."""
    names, values = list(rows), []
    for m in names:
        others = [n for n in names if n != m]
        sizes = [len(others)] if subsets == "leave_one_out" else range(2, len(names))
        for subset in (s for size in sizes for s in combinations(others, size)):
            items = []
            for i, z in enumerate(rows[m]):
                parts = [x for x in (rows[n][i] for n in subset) if x is not None]
                needed = 2 if subsets == "leave_one_out" else len(subset)
                total = sum(parts) if parts else None
                if z is not None and len(parts) >= needed and total.norm() > 1e-6:
                    items.append((i, total / total.norm(), z))
            if not items:
                continue
            if form == "alignment":
                values.append(mean([((f - z) ** 2).sum() / (2 * tau) for _, f, z in items]))
            else:
                logits = [[(f * z).sum() / tau for _, _, z in items] for _, f, _ in items]
                values.append(symmetric_contrast(logits, None if ids is None else [ids[i] for i, _, _ in items]))
    return mean(values) if values else torch.zeros((), dtype=torch.float64)
