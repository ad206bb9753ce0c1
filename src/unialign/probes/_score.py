"""Score the test items of a trained probe.

Shapes: `n` test items, `C` classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unialign.ops import row_tiles
from unialign.probes._hits import hits, predicted
from unialign.probes._result import ProbeResult
from unialign.probes._split import ProbeData

TOP = 5


def scored(
    task: str,
    data: ProbeData,
    scores: Callable[[slice], Tensor],
    settings: Mapping[str, Any],
    validation: Sequence[Mapping[str, Any]],
) -> ProbeResult:
    """Return the result of a probe; `scores` returns the (rows, C) scores of a slice of the test items."""
    labels_n = data.labels["test"]
    top_nk, found = top_classes(scores, labels_n, data.known)
    return ProbeResult(
        task=task,
        classes=data.classes[: data.known],
        rows=data.rows["test"],
        predictions=top_nk[:, 0],
        top=top_nk,
        labels=labels_n,
        hits=found,
        settings=settings,
        validation=validation,
        unknown=data.classes[data.known :],
        counts=data.counts,
        _groups=data.groups,
    )


def top_classes(scores: Callable[[slice], Tensor], labels_n: Tensor, classes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the best five classes of each item and its hits, computed in tiles of items."""
    top, first, five = [], [], []
    for part in row_tiles(len(labels_n), classes):
        scores_nC = scores(part)
        top.append(predicted(scores_nC, TOP))
        first.append(hits(scores_nC, labels_n[part], 1))
        five.append(hits(scores_nC, labels_n[part], TOP))
    found = {"top1": torch.cat(first)} | ({"top5": torch.cat(five)} if classes > TOP else {})
    return torch.cat(top), found
