"""Conflict of forces with each modality as anchor.

Shapes: `M` modalities, `B` items, `D` dimension.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unialign._checks import check_choice
from unialign.errors import ShapeError
from unialign.geometry._conflict import PER_ITEM, SHOWN, ConflictResult, PairWeights, conflict, quantiles_of
from unialign.geometry._forces import Direction

__all__ = ["AnchorsResult", "conflict_over_anchors"]


@dataclass(frozen=True, eq=False, repr=False)
class AnchorsResult:
    """Result of `conflict_over_anchors`: one `ConflictResult` per anchor."""

    by_anchor: dict[str, ConflictResult]

    def __repr__(self) -> str:
        means = self.means()
        shown = ", ".join(f"{name}={means[name]:.4g}" for name in SHOWN)
        return f"AnchorsResult(anchors={list(self.by_anchor)}, mean {shown})"

    def means(self) -> dict[str, float]:
        """Return `ConflictResult.means` averaged over the anchors with a defined value; NaN without any."""
        found: dict[str, list[float]] = {}
        for result in self.by_anchor.values():
            for name, value in result.means().items():
                found.setdefault(name, []).extend([] if math.isnan(value) else [value])
        return {name: math.fsum(values) / len(values) if values else math.nan for name, values in found.items()}

    def quantiles(self, field: str, levels: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> list[float]:
        """Return quantiles of a per-item field over its defined items of all anchors; NaN without any."""
        check_choice("field", field, PER_ITEM)
        return quantiles_of(torch.cat([getattr(result, field) for result in self.by_anchor.values()]), levels)


def conflict_over_anchors(
    embeddings: Mapping[str, Any],
    *,
    temperature: float = 0.07,
    direction: Direction = "forward",
    present: Mapping[str, Any] | None = None,
    weights: PairWeights | None = None,
) -> AnchorsResult:
    """Compute `conflict` with each modality as anchor; the paper reports means over items and anchors (Eq. 4).

    Args, Raises: see `conflict`; `direction`, `weights` and `present` apply to every anchor.
    """
    if not isinstance(embeddings, Mapping):
        raise ShapeError(
            f"embeddings must be a mapping of modality name to (B, D) tensor or array, got {type(embeddings).__name__}"
        )
    results = {
        anchor: conflict(
            embeddings,
            anchor=anchor,
            temperature=temperature,
            direction=direction,
            present=present,
            weights=weights,
        )
        for anchor in embeddings
    }
    if not results:
        raise ShapeError("expected at least 2 modalities, got 0: []")
    return AnchorsResult(results)
