"""Find exact nearest neighbors by cosine.

Shapes: `Q` queries, `G` gallery rows, `D` dimension.
"""

from typing import Any, NamedTuple

from torch import Tensor

from unialign._checks import check_integer
from unialign.errors import ConfigError
from unialign.ops import TIE_TOLERANCE, query_and_gallery, top_k


class KNNResult(NamedTuple):
    """Result of `knn`, best first, on the device of the queries.

    Attributes:
        scores: (Q, k) float64, cosines.
        rows: (Q, k) int64, rows of the gallery.
    """

    scores: Tensor
    rows: Tensor


def knn(queries: Any, gallery: Any, *, k: int, batch_size: int = 1024) -> KNNResult:
    """Find the k gallery rows with the highest cosine to each query by exact search, without an index.

    Candidates whose cosines differ by at most 1e-12 are tied and sorted by row. Most of the work is a float32 product;
    candidates within rounding error of the k-th place are rescored in float64, so scores and rows equal those of a
    float64 search.

    Args:
        queries: (Q, D) floating tensor or array; rows are L2-normalized here.
        gallery: (G, D); may be a memory map, and is never copied in full.
        k: from 1 to G.
        batch_size: maximum number of queries scored at once. The batch size does not affect the result.

    Returns:
        See `KNNResult`. Memory is O(Q (D + k)) in addition to the inputs.

    Raises:
        ShapeError: an input is empty or not 2-D, or the dimensions differ.
        NonFiniteError: a row contains NaN or infinity, or has norm zero.
        ConfigError: k or batch_size is out of range.
    """
    check_integer("k", k, low=1)
    check_integer("batch_size", batch_size, low=1)
    unit_queries, unit_gallery = query_and_gallery(queries, gallery)
    if k > len(unit_gallery):
        raise ConfigError(f"k is {k}, but the gallery has only {len(unit_gallery)} rows; choose a smaller k")
    return KNNResult(*top_k(unit_queries, unit_gallery, k, tolerance=TIE_TOLERANCE, most=batch_size))
