"""Detect two modalities that are copies of one matrix: equal, scaled, rounded, quantized, or recomputed.

Shapes: `n` sampled items, `k` items with both modalities, `D` dimension, `t` rows of a tile.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics import _limits as limits
from unialign.ops import row_tiles

# Largest 1 - cosine of rows that differ only by a factor. Rounding gives 1e-14 for float32 and 1e-8 for float16.
_SAME_DIRECTION = 1e-11
# Largest 1 - cosine of a row and its copy, relative to that of random pairs, for rounded floats (bfloat16 gives 1e-6),
# int8 or int4 codes (1e-4 and 1e-2), and recomputed vectors.
_ROUNDED, _CODES, _RECOMPUTED = 1e-4, 0.1, 1e-3
# Maximum number of distinct values of a quantized modality, and the minimum fraction of items that must be copies.
_MAX_CODES = 256
_QUANTILE = 0.95
# Minimum fraction of equal signs for a two-valued modality to be classified as the signs of the other modality.
_EQUAL_SIGNS = 0.99
# Minimum correlation with the other modality's column at which codes are scaled and shifted values. The correlation is
# 0.98 for int4 codes.
_MIN_CORRELATION = 0.95
_NEIGHBORS = 10
# Number of rows used for a fast first count of distinct values.
_FIRST_ROWS = 64


@dataclass(frozen=True)
class CopyStats:
    kind: str  # "same" (up to a factor), "rounded", "quantized", "binary", "recomputed" or "" (no copy)
    fraction: float  # fraction of items whose rows have the same direction
    copy: str = ""  # modality with the lower precision; "" if it is unknown
    precision: str = ""  # such as "bfloat16" or "256 values"
    cosine: float = float("nan")  # mean cosine between a row and its copy
    lowest_cosine: float = float("nan")
    same_first: float = float("nan")  # fraction of rows with the same nearest row in both modalities
    same_ten: float = float("nan")  # mean fraction of the nearest `neighbors` rows shared by both modalities
    neighbors: int = 0  # number of neighbors compared: 10, or fewer in a small sample


def compare_copies(
    names: tuple[str, str],
    z: tuple[Tensor, Tensor],
    raw: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    random_cosine: float,
) -> CopyStats:
    """Compare two modalities. `z` are (k, D) unit rows, and `raw` are the same rows as stored; D is at least 2."""
    residual_k = (z[0] - z[1]).square().sum(1) / 2
    base = max(1 - random_cosine, 1e-12)
    fraction = float((residual_k <= min(_SAME_DIRECTION, 1e-3 * base)).double().mean())
    if fraction >= limits.DUPLICATE_MODALITY:
        return CopyStats("same", fraction)
    relative = float(torch.quantile(residual_k, _QUANTILE)) / base
    first_rows = [len(np.unique(x[:_FIRST_ROWS])) for x in raw]
    if relative > _CODES and min(first_rows) > _MAX_CODES:
        return CopyStats("", fraction)
    kind, at, precision = _copy_kind(raw, relative)
    if not kind:
        # Rows with few distinct values are often equal without being copies.
        return CopyStats("", fraction if min(first_rows) > _MAX_CODES else 0.0)
    same_first, same_ten = _equal_neighbors(*z)
    return CopyStats(
        kind=kind,
        fraction=fraction,
        copy=names[at] if at >= 0 else "",
        precision=precision,
        cosine=float(1 - residual_k.mean()),
        lowest_cosine=float(1 - residual_k.max()),
        same_first=same_first,
        same_ten=same_ten,
        neighbors=min(_NEIGHBORS, len(residual_k) - 1),
    )


def _copy_kind(raw: tuple[NDArray[np.float64], NDArray[np.float64]], relative: float) -> tuple[str, int, str]:
    """Return the kind of copy ("" if none), the index of the copy (-1 if unknown) and its precision."""
    values = [len(np.unique(x)) for x in raw]
    at = int(values[1] < values[0])
    if values[at] == 2 and values[1 - at] > 2:
        signs = float(((raw[at] == raw[at].max()) == (raw[1 - at] > 0)).mean())
        return ("binary", at, "1 bit per value") if signs >= _EQUAL_SIGNS else ("", -1, "")
    if values[at] <= _MAX_CODES and values[at] < values[1 - at] and (relative <= _CODES or _is_affine(*raw)):
        return "quantized", at, f"{values[at]} distinct values"
    formats = [_float_format(x) for x in raw]
    if formats[0] != formats[1] and relative <= _ROUNDED:
        at = int(_BITS[formats[1]] < _BITS[formats[0]])
        return "rounded", at, formats[at]
    return ("recomputed", -1, "") if relative <= _RECOMPUTED else ("", -1, "")


def _is_affine(x_kD: NDArray[np.float64], y_kD: NDArray[np.float64]) -> bool:
    """Return whether nearly every column of one matrix is highly correlated with the same column of the other."""
    x_kD, y_kD = (z / max(float(np.abs(z).max()), 1e-300) for z in (x_kD, y_kD))
    x_kD, y_kD = x_kD - x_kD.mean(0), y_kD - y_kD.mean(0)
    spread_D = np.sqrt(np.square(x_kD).sum(0) * np.square(y_kD).sum(0))
    moving_D = spread_D > 1e-12
    correlation_D = (x_kD * y_kD).sum(0)[moving_D] / spread_D[moving_D]
    enough = len(x_kD) >= limits.FEW_ITEMS and len(correlation_D) > 0
    return bool(enough and np.quantile(correlation_D, 1 - _QUANTILE) >= _MIN_CORRELATION)


_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def _float_format(raw_kD: NDArray[np.float64]) -> str:
    with np.errstate(over="ignore"):
        single = raw_kD.astype(np.float32)
    if not np.array_equal(single.astype(np.float64), raw_kD):
        return "float64"
    if not (single.view(np.uint32) & np.uint32(0xFFFF)).any():
        return "bfloat16"
    with np.errstate(over="ignore"):
        half = single.astype(np.float16)
    return "float16" if np.array_equal(half.astype(np.float32), single) else "float32"


def _equal_neighbors(x_kD: Tensor, y_kD: Tensor) -> tuple[float, float]:
    """Return the fraction of rows with the same nearest row, and the mean overlap of the 10 nearest rows."""
    count = min(_NEIGHBORS, len(x_kD) - 1)
    first, ten = 0.0, 0.0
    for tile in row_tiles(len(x_kD), len(x_kD)):
        own_t = torch.arange(tile.start, min(tile.stop, len(x_kD)))
        top = []
        for z_kD in (x_kD, y_kD):
            cosine_tk = z_kD[tile] @ z_kD.mT
            cosine_tk[torch.arange(len(own_t)), own_t] = -torch.inf
            top.append(cosine_tk.topk(count, dim=1).indices)
        first += float((top[0][:, 0] == top[1][:, 0]).sum())
        ten += float((top[0][:, :, None] == top[1][:, None, :]).any(2).double().mean(1).sum())
    return first / len(x_kD), ten / len(x_kD)
