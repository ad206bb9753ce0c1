"""Implement InfoNCE with directions, several positives, and weighted or additional negatives.

The loss is computed in a loop over queries i of each pair (m, n) of modalities.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reference._rows import Ids, Rows, both, mean, pairs_of

__all__ = ["infonce_of_queries"]

# A list of rows with ids; the id is None for a row without an id.
Shared = Sequence[tuple[Tensor, int | None]]


def infonce_of_queries(
    rows: Rows,
    *,
    anchor: str,
    tau: float | Tensor,
    label_smoothing: float = 0.0,
    direction: str = "both",
    same_ids: str = "exclude",
    pair_weights: Mapping[str, float] | None = None,
    hardness: float = 0.0,
    ids: Ids = None,
    own: Mapping[str, Sequence[Sequence[Tensor]]] | None = None,
    shared: Mapping[str, Shared] | None = None,
) -> Tensor:
    """Return the loss per query, averaged over directions and queries and then, with weights, over pairs.

    Args:
        own: for each modality of keys, the negatives of each item as unit rows.
        shared: for each modality of keys, the shared negatives as unit rows with ids.
    """
    total, weights = torch.zeros((), dtype=torch.float64), 0.0
    for m, n in pairs_of(rows, anchor):
        first, second = (m, n) if anchor in ("all", m) else (n, m)
        ways = {"both": [(first, second), (second, first)], "forward": [(first, second)]}
        losses = []
        for query, key in ways.get(direction, [(second, first)]):
            items = both(rows, query, key)
            for i, x, y in items:
                further = [(x * z).sum() for z in (own or {}).get(key, {i: []})[i]]
                for z, label in (shared or {}).get(key, []):
                    if ids is None or label is None or label != ids[i]:
                        further.append((x * z).sum())
                same = [(x * v).sum() for k, _, v in items if k != i and ids is not None and ids[k] == ids[i]]
                others = [(x * v).sum() for k, _, v in items if k != i and (ids is None or ids[k] != ids[i])]
                positives = [(x * y).sum(), *(same if same_ids == "positive" else [])]
                losses.append(_query(positives, others + further, tau, hardness, label_smoothing))
        if losses:
            known = pair_weights or {}
            weight = known.get(f"{m}-{n}", known.get(f"{n}-{m}", 1.0))
            total, weights = total + weight * mean(losses), weights + weight
    return total / weights if weights else total


def _query(
    positives: Sequence[Tensor],
    negatives: Sequence[Tensor],
    tau: float | Tensor,
    hardness: float,
    label_smoothing: float,
) -> Tensor:
    """Return the loss of one query from its cosines with positives and negatives."""
    terms = [cosine / tau for cosine in positives]
    if negatives:
        exponents = torch.stack([hardness * cosine for cosine in negatives])
        log_weights = math.log(len(negatives)) + exponents - torch.logsumexp(exponents, 0)
        terms += [cosine / tau + log_weight for cosine, log_weight in zip(negatives, log_weights, strict=True)]
    log_z = torch.logsumexp(torch.stack(terms), 0)
    loss = mean([log_z - cosine / tau for cosine in positives])
    spread = mean([log_z - cosine / tau for cosine in [*positives, *negatives]])
    return (1 - label_smoothing) * loss + label_smoothing * spread
