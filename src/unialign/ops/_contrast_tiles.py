"""Compute the value and gradients of a contrastive loss (see `_contrast`) from tiles of logits.

Logits are exponentiated in place, with one constant shift for the whole matrix. If a sum is so small that some of its
terms may have underflowed, the matrix is summed again with running maxima. Sums are float64.

Shapes: `N` selected rows, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unialign.ops._log_sums import RunningLogSums, ShiftedLogSums, shifted_exp_
from unialign.ops._logits import Logits
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import rectangle, tile_view

# Exponentials of logits up to _LARGEST above the shift, and their sums over a tile, are in float32's range (e^88).
_LARGEST = 80.0
# Sums with a log below _SMALLEST_LOG_SUM may lack terms that underflowed (e^-87).
_SMALLEST_LOG_SUM = -57.0
# Weights below this are set to 0.
_SMALLEST_WEIGHT = 1e-30

_Tile = tuple[slice, slice, Tensor, Any]


class ContrastOptions(NamedTuple):
    """Label smoothing s, weight w of the positive logits, and rows per tile."""

    directions: int
    smoothing: float
    positive_weight: float
    side: int


class LogPartitions(NamedTuple):
    """r (and c if symmetric) in float64; `shifted` is False if the sums used running maxima."""

    logs: list[Tensor]
    shifted: bool


class ContrastTiles:
    """One tile of logits at a time, in a reused buffer."""

    def __init__(
        self, logits: Logits, positive_logits_N: Tensor, selection: RowSelection, options: ContrastOptions
    ) -> None:
        self.logits, self.positive_logits_N = logits, positive_logits_N
        self.selection, self.options, self.directions = selection, options, options.directions
        self.factor = 1 / max(1, selection.size * self.directions)
        self.keys_N = selection.others(positive_logits_N.dtype, positive_logits_N.device) + 1
        self.shift = max(0.0, logits.highest - _LARGEST)
        self.wide_span = logits.highest - logits.lowest > _LARGEST
        longest = min(options.side, selection.size)
        self.buffer, self.spare = (positive_logits_N.new_empty(longest * longest) for _ in range(2))
        self.last_tile: _Tile | None = None

    def value(self) -> tuple[float, LogPartitions]:
        value, partitions = self._value(shifted=True)
        return (value, partitions) if self._is_complete(partitions) else self._value(shifted=False)

    def gradients(self, partitions: LogPartitions, *, of_last_tile: bool = False) -> list[Tensor]:
        """`of_last_tile` reuses the tile that `value` left in the buffer."""
        gradients = [torch.zeros_like(tensor) for tensor in (self.positive_logits_N, *self.logits.tensors)]
        last = [] if self.last_tile is None else [self.last_tile]
        for i, j, x_IJ, saved in last if of_last_tile else self._tiles():
            if partitions.shifted and not of_last_tile:
                shifted_exp_(x_IJ, self.shift)
            weight_IJ = self._weights_(x_IJ, i, j, partitions)
            self.logits.accumulate_grad(gradients[1:], i, j, weight_IJ, saved)
        gradients[0].copy_(self._positive_gradient(partitions))
        self.logits.finish(gradients[1:])
        return gradients

    def _value(self, *, shifted: bool) -> tuple[float, LogPartitions]:
        size, device = self.selection.size, self.positive_logits_N.device
        sums = [
            ShiftedLogSums(size, device, self.shift) if shifted else RunningLogSums(size, device)
            for _ in range(self.directions)
        ]
        smoothing_sum = 0.0
        for tile in self._tiles():
            i, j, logit_IJ, _ = self.last_tile = tile
            smoothing_sum += self._smoothing_sum(logit_IJ, i, j)
            self._mask_(logit_IJ, i, j, -torch.inf)
            sums[0].prepare_(logit_IJ)
            for direction_sums, rows, dim in zip(sums, (i, j), (1, 0), strict=False):
                direction_sums.add(logit_IJ, rows, dim=dim)
        # Positives are added separately in float64, since the positives dominate the sums in a trained space.
        positive_N = self.positive_logits_N.double()
        partitions = LogPartitions(
            [torch.logaddexp(direction_sums.logs(), positive_N) for direction_sums in sums], shifted
        )
        return self._total(partitions, smoothing_sum), partitions

    def _is_complete(self, partitions: LogPartitions) -> bool:
        """Return whether terms lost to underflow are negligible."""
        if self.selection.size == 0:
            return True
        return min(float(logs_N.min()) for logs_N in partitions.logs) >= self.shift + _SMALLEST_LOG_SUM

    def _total(self, partitions: LogPartitions, smoothing_sum: float) -> float:
        positive_N, (_, smoothing, weight, _) = self.positive_logits_N.double(), self.options
        total = sum(float((logs_N - weight * positive_N).sum()) for logs_N in partitions.logs)
        smoothing_sum += self.directions * float((positive_N / self.keys_N).sum())
        value = (total - smoothing * smoothing_sum) * self.factor
        # The loss is nonnegative, but its computed value may be slightly negative because of rounding.
        return max(0.0, value) if weight == 1 - smoothing else value

    def _positive_gradient(self, partitions: LogPartitions) -> Tensor:
        positive_N, (_, smoothing, weight, _) = self.positive_logits_N.double(), self.options
        probability_N = sum(torch.exp(positive_N - logs_N) for logs_N in partitions.logs)
        return (probability_N - self.directions * (smoothing / self.keys_N + weight)) * self.factor

    def _smoothing_sum(self, logit_IJ: Tensor, i: slice, j: slice) -> float:
        """sum_ij l_ij (1/k_i + 1/k_j) over the keys of a tile except the positives."""
        if self.options.smoothing == 0:
            return 0.0
        copy_IJ = tile_view(self.spare, i, j).copy_(logit_IJ)
        self._mask_(copy_IJ, i, j, 0.0)
        total = (copy_IJ.sum(1).double() / self.keys_N[i]).sum()
        if self.directions == 2:
            total += (copy_IJ.sum(0).double() / self.keys_N[j]).sum()
        return float(total)

    def _weights_(self, x_IJ: Tensor, i: slice, j: slice, partitions: LogPartitions) -> Tensor:
        """Replace logits, or their shifted exponentials, with the derivatives of the loss."""
        softmax_ = self._shifted_softmax_ if partitions.shifted else self._softmax_
        weight_IJ = softmax_(x_IJ, i, j, partitions.logs)
        if weight_IJ.dtype == torch.float32 and self.wide_span:
            # Denormal numbers contribute nothing and are about 100 times slower to multiply on a CPU.
            torch.threshold_(weight_IJ, _SMALLEST_WEIGHT, 0.0)
        if self.options.smoothing > 0:
            even_N = self.options.smoothing * self.factor / self.keys_N
            weight_IJ -= self._outer_sum(even_N, even_N, i, j)
        self._mask_(weight_IJ, i, j, 0.0)
        return weight_IJ

    def _shifted_softmax_(self, e_IJ: Tensor, i: slice, j: slice, logs: list[Tensor]) -> Tensor:
        inverse = [(torch.exp(self.shift - logs_N) * self.factor).to(e_IJ.dtype) for logs_N in logs]
        return e_IJ.mul_(self._outer_sum(inverse[0], inverse[-1], i, j))

    def _softmax_(self, logit_IJ: Tensor, i: slice, j: slice, logs: list[Tensor]) -> Tensor:
        spare_IJ, dtype = tile_view(self.spare, i, j), logit_IJ.dtype
        if self.directions == 2:
            torch.exp(logit_IJ - logs[1][j].to(dtype), out=spare_IJ)
        logit_IJ.sub_(logs[0][i, None].to(dtype)).exp_()
        if self.directions == 2:
            logit_IJ += spare_IJ
        return logit_IJ.mul_(self.factor)

    def _outer_sum(self, rows_N: Tensor, columns_N: Tensor, i: slice, j: slice) -> Tensor:
        """a_i + b_j if the loss is symmetric, else a_i."""
        return (
            torch.add(rows_N[i, None], columns_N[j], out=tile_view(self.spare, i, j))
            if self.directions == 2
            else rows_N[i, None]
        )

    def _mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        self.selection.mask_(x_IJ, i, j, value)
        masked_IJ = self.logits.masked(i, j)
        if masked_IJ is not None:
            x_IJ.masked_fill_(masked_IJ, value)

    def _tiles(self) -> Iterator[_Tile]:
        for i, j in rectangle(self.selection.size, self.selection.size, side=self.options.side):
            logit_IJ = tile_view(self.buffer, i, j)
            saved = self.logits.tile(i, j, logit_IJ)
            yield i, j, logit_IJ, saved
