"""Row by row: the sums over all columns that uniformity and InfoNCE are made of, as tiles of torch operations.

With s_ik = scale <x_i, y_k> over the columns k that row i may see:

    log_sums   r_i = log sum_k exp(s_ik)
    means      m_i = sum_k exp(s_ik - r_i) s_ik, the slope of r_i by log scale
    pull       p_i = scale sum_k (g_i exp(s_ik - r_i) + h_k exp(s_ik - c_k)) y_k

Row i's own column is `places_R[i]`; it is seen only if `own` is "kept". Columns with the row's code are never seen, but
for the own one. A row that sees nothing has r = -inf, and pulls nothing. Each row is one process's business alone: no
two write to one place, so that the result does not depend on who comes first.

Shapes: `R` rows, `N` columns, `D` width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unialign.ops._tiles import row_tiles

__all__ = ["Own", "Table", "accumulate_grad", "log_sums", "log_sums_and_means"]

Own = Literal["kept", "left_out"]

# exp of logits between -40 and 40, summed over a million rows, stays in float32's range (e^-87 to e^88), and so does
# its product with the inverse of such a sum.
_NARROW = 40.0
_TILE_CPU, _ROWS_CPU = 2**20, 64


@dataclass(frozen=True, eq=False)
class Table:
    """Rows against columns, and who sees whom.

    Attributes:
        x_RD, y_ND: rows and columns, of one floating dtype.
        scale: factor of the inner products.
        places_R: int64, the own column of each row, rising.
        codes_R, codes_N: int32, equal for equal ids; None: all ids differ.
        own: whether a row sees its own column.
    """

    x_RD: Tensor
    y_ND: Tensor
    scale: float
    places_R: Tensor
    codes_R: Tensor | None
    codes_N: Tensor | None
    own: Own

    @property
    def narrow(self) -> bool:
        """Whether exponentials of the logits of unit rows, and sums of them, stay in float32's range as they are."""
        return abs(self.scale) <= _NARROW


def log_sums(table: Table, *, compiled: bool = False) -> Tensor:
    """(R,) r, in the rows' dtype (float32 of half precision)."""
    sums = _compiled(_log_sums_of_tile) if compiled else _log_sums_of_tile
    parts = [sums(_logits(table, tile), *_hidden(table, tile)) for tile in _tiles(table)]
    return torch.cat(parts) if parts else _wide(table.x_RD).new_zeros(0)


def log_sums_and_means(table: Table, *, compiled: bool = False) -> tuple[Tensor, Tensor]:
    """(R,) r and m; m is 0 in a row that sees nothing."""
    sums = _compiled(_sums_and_means_of_tile) if compiled else _sums_and_means_of_tile
    r_R = _wide(table.x_RD).new_empty(len(table.x_RD))
    m_R = torch.empty_like(r_R)
    for tile in _tiles(table):
        r_R[tile], m_R[tile] = sums(_logits(table, tile), *_hidden(table, tile))
    return r_R, m_R


def accumulate_grad(
    table: Table, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor, *, compiled: bool = False
) -> Tensor:
    """(R, D) p."""
    weigh = _compiled(_weights_of_tile) if compiled else _weights_of_tile
    # exp(s - inf) = 0: what sees nothing, or is seen by nobody, has no part.
    r_R, c_N = (torch.where(x == -torch.inf, torch.inf, x) for x in (r_R, c_N))
    y_ND = _wide(table.y_ND)
    p_RD = y_ND.new_empty(len(table.x_RD), y_ND.shape[1])
    for tile in _tiles(table):
        weight_tN = weigh(_logits(table, tile), *_hidden(table, tile), r_R[tile], g_R[tile], c_N, h_N)
        torch.mm(weight_tN, y_ND, out=p_RD[tile])
    return p_RD.mul_(table.scale)


def _tiles(table: Table) -> Iterator[slice]:
    """On a CPU tiles of a few MiB that stay in its caches, but of enough rows for a product."""
    rows, columns = len(table.x_RD), len(table.y_ND)
    entries = max(_TILE_CPU, _ROWS_CPU * columns) if table.x_RD.device.type == "cpu" else None
    return row_tiles(rows, columns, entries=entries)


def _logits(table: Table, tile: slice) -> Tensor:
    return _wide(table.x_RD[tile]) * table.scale @ _wide(table.y_ND).mT


def _hidden(table: Table, tile: slice) -> tuple[Tensor, Tensor | None, Tensor | None, bool, bool]:
    codes_t = None if table.codes_R is None else table.codes_R[tile]
    return table.places_R[tile], codes_t, table.codes_N, table.own == "kept", table.narrow


def _hide_(
    x_tN: Tensor, value: float, places_t: Tensor, codes_t: Tensor | None, codes_N: Tensor | None, own_kept: bool
) -> Tensor:
    """Overwrite what the rows may not see."""
    if codes_t is None or codes_N is None:
        return x_tN if own_kept else x_tN.scatter_(1, places_t[:, None], value)
    # A row's own column has its code.
    same_tN = codes_t[:, None] == codes_N
    if own_kept:
        same_tN.scatter_(1, places_t[:, None], False)
    return x_tN.masked_fill_(same_tN, value)


def _log_sums_of_tile(
    s_tN: Tensor, places_t: Tensor, codes_t: Tensor | None, codes_N: Tensor | None, own_kept: bool, narrow: bool
) -> Tensor:
    if narrow:
        return torch.log(_hide_(s_tN.exp_(), 0.0, places_t, codes_t, codes_N, own_kept).sum(1))
    return torch.logsumexp(_hide_(s_tN, -torch.inf, places_t, codes_t, codes_N, own_kept), 1)


def _sums_and_means_of_tile(
    s_tN: Tensor, places_t: Tensor, codes_t: Tensor | None, codes_N: Tensor | None, own_kept: bool, narrow: bool
) -> tuple[Tensor, Tensor]:
    if narrow:
        kernel_tN = _hide_(torch.exp(s_tN), 0.0, places_t, codes_t, codes_N, own_kept)
        total_t = kernel_tN.sum(1)
        return torch.log(total_t), (kernel_tN.mul_(s_tN)).sum(1) / torch.where(total_t > 0, total_t, 1.0)
    masked_tN = _hide_(s_tN.clone(), -torch.inf, places_t, codes_t, codes_N, own_kept)
    r_t = torch.logsumexp(masked_tN, 1)
    share_tN = masked_tN.sub_(torch.where(r_t == -torch.inf, torch.inf, r_t)[:, None]).exp_()
    # A hidden logit is finite here, and its share 0.
    return r_t, share_tN.mul_(s_tN).sum(1)


def _weights_of_tile(
    s_tN: Tensor,
    places_t: Tensor,
    codes_t: Tensor | None,
    codes_N: Tensor | None,
    own_kept: bool,
    narrow: bool,
    r_t: Tensor,
    g_t: Tensor,
    c_N: Tensor,
    h_N: Tensor,
) -> Tensor:
    if narrow:
        # One exponential an entry serves both sums.
        kernel_tN = _hide_(s_tN.exp_(), 0.0, places_t, codes_t, codes_N, own_kept)
        return kernel_tN.mul_((g_t * torch.exp(-r_t))[:, None] + h_N * torch.exp(-c_N))
    masked_tN = _hide_(s_tN, -torch.inf, places_t, codes_t, codes_N, own_kept)
    weight_tN = torch.exp(masked_tN - r_t[:, None]).mul_(g_t[:, None])
    return weight_tN.add_(masked_tN.sub_(c_N).exp_().mul_(h_N))


_cache: dict[Callable[..., Any], Callable[..., Any]] = {}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Compiled once a process: half a minute on the first call, then milliseconds.
    if function not in _cache:
        _cache[function] = torch.compile(function, dynamic=True)
    return _cache[function]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
