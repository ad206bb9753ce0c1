"""List broken cells with the names of the affected items.

Shapes: `N` items.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.media import Cell

__all__ = ["broken_cell_records"]

_SHOWN = 5


def broken_cell_records(
    modality: str,
    keys: NDArray[Any],
    cells: Sequence[Cell],
    index_N: NDArray[np.int64],
    broken: Iterable[tuple[int, str, str]],
) -> Iterator[dict[str, Any]]:
    """Yield one JSON object per broken cell, for a file `broken.jsonl`.

    Args:
        keys: (N,) names of the items.
        cells: distinct cells of the modality.
        index_N: index of the cell of each item, -1 if absent.
        broken: number, code and detail of each broken cell.
    """
    order_N = np.argsort(index_N, kind="stable")
    sorted_N = index_N[order_N]
    for number, code, detail in broken:
        first, end = np.searchsorted(sorted_N, [number, number + 1]).tolist()
        cell = cells[number]
        yield {
            "modality": modality,
            "cell": cell.where,
            "source": cell.to_json(),
            "items": [str(keys[row]) for row in order_N[first : min(end, first + _SHOWN)]],
            "count": end - first,
            "code": code,
            "detail": detail,
        }
