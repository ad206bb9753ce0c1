"""Compute row sums of logits in tiles of torch operations, for uniformity and InfoNCE.

Let s_ik = scale <x_i, y_k>, where k runs over the unmasked columns of row i. The functions return:

    log_sums          r_i = log sum_k exp(s_ik), and m_i = sum_k exp(s_ik - r_i) s_ik = d r_i / d log scale
    accumulate_grad   p_i = scale sum_k (g_i exp(s_ik - r_i) + h_k exp(s_ik - c_k)) y_k

Columns with the same code as the row are masked; `self_pairs` determines whether the self pair of row i (column
`local_R[i]`) is masked or included. A fully masked row has r = -inf and p = 0. Each row is computed by exactly one
process, so the result does not depend on the order of writes.

Shapes: `R` rows, `N` columns, `D` dimension, `t` rows of a tile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from unialign.ops._row_selection import SelfPairs
from unialign.ops._tiles import row_tiles

# Exponentials of logits in [-40, 40], sums of a million of these exponentials, and ratios of both are in float32's
# range (e^-87 to e^88).
_PLAIN_EXP = 40.0
_TILE_CPU, _ROWS_CPU = 2**20, 64

# Self columns and codes of the rows of a tile, codes of the columns, and whether self pairs are included.
_Mask = tuple[Tensor, Tensor | None, Tensor | None, bool]


@dataclass(frozen=True, eq=False)
class LogitMatrix:
    """Logits of R rows and N columns, and their mask.

    Attributes:
        x_RD, y_ND: rows and columns, of the same floating-point dtype.
        scale: factor of the inner products.
        local_R: column of each row's self pair, int64, ascending.
        codes_N: int32 codes, equal for equal ids; None if all ids differ.
        self_pairs: whether a row includes its self pair.
        compiled: whether tiles are computed with `torch.compile`; ignored by the Triton kernels.
    """

    x_RD: Tensor
    y_ND: Tensor
    scale: float
    local_R: Tensor
    codes_N: Tensor | None
    self_pairs: SelfPairs
    compiled: bool = False

    @property
    def plain_exp(self) -> bool:
        """Exponentials of the logits and their sums are in float32's range without a shift."""
        return abs(self.scale) <= _PLAIN_EXP


def log_sums(matrix: LogitMatrix, *, with_means: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return r and, with `with_means`, m (0 in fully masked rows)."""
    sums = _compiled(_sums_of_tile) if matrix.compiled else _sums_of_tile
    r_R = _at_least_float32(matrix.x_RD).new_empty(len(matrix.x_RD))
    m_R = torch.empty_like(r_R) if with_means else None
    for tile, s_tN, mask in _tiles(matrix):
        r_R[tile], m_t = sums(s_tN, mask, matrix.plain_exp, with_means)
        if m_R is not None and m_t is not None:
            m_R[tile] = m_t
    return r_R, m_R


def accumulate_grad(matrix: LogitMatrix, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor) -> Tensor:
    weights = _compiled(_weights_of_tile) if matrix.compiled else _weights_of_tile
    # exp(s - inf) = 0, so empty sums contribute nothing.
    r_R, c_N = (torch.where(x == -torch.inf, torch.inf, x) for x in (r_R, c_N))
    y_ND = _at_least_float32(matrix.y_ND)
    p_RD = y_ND.new_empty(len(matrix.x_RD), y_ND.shape[1])
    for tile, s_tN, mask in _tiles(matrix):
        weight_tN = weights(s_tN, mask, matrix.plain_exp, r_R[tile], g_R[tile], c_N, h_N)
        torch.mm(weight_tN, y_ND, out=p_RD[tile])
    return p_RD.mul_(matrix.scale)


def _tiles(matrix: LogitMatrix) -> Iterator[tuple[slice, Tensor, _Mask]]:
    """On a CPU, tiles fit into the caches but have at least 64 rows, for efficient products."""
    rows, columns = len(matrix.x_RD), len(matrix.y_ND)
    entries = max(_TILE_CPU, _ROWS_CPU * columns) if matrix.x_RD.device.type == "cpu" else None
    for tile in row_tiles(rows, columns, entries=entries):
        s_tN = _at_least_float32(matrix.x_RD[tile]) * matrix.scale @ _at_least_float32(matrix.y_ND).mT
        self_t = matrix.local_R[tile]
        codes_t = None if matrix.codes_N is None else matrix.codes_N[self_t]
        yield tile, s_tN, (self_t, codes_t, matrix.codes_N, matrix.self_pairs == "included")


def _mask_(x_tN: Tensor, value: float, mask: _Mask) -> Tensor:
    self_t, codes_t, codes_N, keep_self = mask
    if codes_t is None or codes_N is None:
        return x_tN if keep_self else x_tN.scatter_(1, self_t[:, None], value)
    # The self pair also has equal codes.
    same_tN = codes_t[:, None] == codes_N
    if keep_self:
        same_tN.scatter_(1, self_t[:, None], False)
    return x_tN.masked_fill_(same_tN, value)


def _sums_of_tile(s_tN: Tensor, mask: _Mask, plain_exp: bool, with_means: bool) -> tuple[Tensor, Tensor | None]:
    if plain_exp:
        kernel_tN = _mask_(torch.exp(s_tN) if with_means else s_tN.exp_(), 0.0, mask)
        total_t = kernel_tN.sum(1)
        m_t = kernel_tN.mul_(s_tN).sum(1) / torch.where(total_t > 0, total_t, 1.0) if with_means else None
        return torch.log(total_t), m_t
    masked_tN = _mask_(s_tN.clone() if with_means else s_tN, -torch.inf, mask)
    r_t = torch.logsumexp(masked_tN, 1)
    if not with_means:
        return r_t, None
    p_tN = masked_tN.sub_(torch.where(r_t == -torch.inf, torch.inf, r_t)[:, None]).exp_()
    # Masked logits are finite here and have probability 0.
    return r_t, p_tN.mul_(s_tN).sum(1)


def _weights_of_tile(
    s_tN: Tensor, mask: _Mask, plain_exp: bool, r_t: Tensor, g_t: Tensor, c_N: Tensor, h_N: Tensor
) -> Tensor:
    if plain_exp:
        # Both sums share one exponential per entry.
        kernel_tN = _mask_(s_tN.exp_(), 0.0, mask)
        return kernel_tN.mul_((g_t * torch.exp(-r_t))[:, None] + h_N * torch.exp(-c_N))
    masked_tN = _mask_(s_tN, -torch.inf, mask)
    weight_tN = torch.exp(masked_tN - r_t[:, None]).mul_(g_t[:, None])
    return weight_tN.add_(masked_tN.sub_(c_N).exp_().mul_(h_N))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Compile once per process, since the first call takes half a minute and later calls take milliseconds.
    return torch.compile(function, dynamic=True)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
