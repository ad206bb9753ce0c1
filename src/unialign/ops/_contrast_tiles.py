"""Value and gradients of a contrast (see `_contrast`) from tiles of its logits.

Exponentials are summed in place, shifted by one constant for the whole matrix. If a sum is so small that some of its
terms may have underflowed, the matrix is summed again with running maxima. Sums are float64.

Shapes: `N` selected rows, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unialign.ops._logits import Logits
from unialign.ops._row_selection import RowSelection
from unialign.ops._running_log_sums import RunningLogSums
from unialign.ops._tiles import rectangle

__all__ = ["ContrastOptions", "ContrastTiles", "LogPartitions"]

# exp of logits up to _LARGEST above the shift, and its sum over a tile, are in float32's range (e^88).
_LARGEST = 80.0
# If the log of a sum is below this, terms that underflowed (e^-87) may be missing from it.
_SMALLEST_LOG_SUM = -57.0
# Weights below this are set to 0.
_SMALLEST_WEIGHT = 1e-30


class ContrastOptions(NamedTuple):
    """`both_sides`: sum over columns as well as rows · label smoothing s · weight w of the positive logits."""

    both_sides: bool
    smoothing: float
    positive_weight: float


class LogPartitions(NamedTuple):
    """r and c, float64. `shifted`: summed with the single shift rather than running maxima."""

    rows_N: Tensor
    columns_N: Tensor
    shifted: bool

    @property
    def logs(self) -> tuple[Tensor, Tensor]:
        return self.rows_N, self.columns_N


class ContrastTiles:
    """Compute the tiles of a contrast's logits, one at a time in one buffer."""

    def __init__(
        self, logits: Logits, positive_logits_N: Tensor, selection: RowSelection, options: ContrastOptions, side: int
    ) -> None:
        self.logits, self.positive_logits_N = logits, positive_logits_N
        self.selection, self.options, self.side = selection, options, side
        self.sides = 2 if options.both_sides else 1
        self.factor = 1 / max(1, selection.size * self.sides)
        self.keys_N = selection.others(positive_logits_N.dtype, positive_logits_N.device) + 1
        self.shift = max(0.0, logits.highest - _LARGEST)
        self.wide_span = logits.highest - logits.lowest > _LARGEST
        longest = min(side, selection.size)
        self.buffers = [positive_logits_N.new_empty(longest * longest) for _ in range(2)]

    def value(self) -> tuple[float, LogPartitions]:
        """Return the contrast and its log-partitions."""
        value, partitions = self._value(shifted=True)
        return (value, partitions) if self._is_complete(partitions) else self._value(shifted=False)

    def gradients(self, partitions: LogPartitions) -> list[Tensor]:
        """Return the gradients with respect to the positive logits and the tensors of the logits."""
        gradients = self._zeros()
        for i, j, logit_IJ, saved in self._tiles():
            if partitions.shifted:
                _shifted_exp_(logit_IJ, self.shift)
            weight_IJ = self._weights_(logit_IJ, i, j, partitions)
            self.logits.accumulate_grad(gradients[1:], i, j, weight_IJ, saved)
        gradients[0].copy_(self._positive_gradient(partitions))
        self.logits.finish(gradients[1:])
        return gradients

    def value_and_gradients(self) -> tuple[float, list[Tensor]]:
        """Return both from a single tile; its exponentials are turned into the weights in place."""
        gradients, value = self._zeros(), 0.0
        for i, j, logit_IJ, saved in self._tiles():
            smoothing_sum = self._smoothing_sum(logit_IJ, i, j)
            partitions = self._partitions_of_tile(logit_IJ, i, j, shifted=True)
            if not self._is_complete(partitions):
                saved = self.logits.tile(i, j, logit_IJ)  # recomputed: exponentials overwrote them
                partitions = self._partitions_of_tile(logit_IJ, i, j, shifted=False)
            value = self._total(partitions, smoothing_sum)
            weight_IJ = self._weights_(logit_IJ, i, j, partitions)
            self.logits.accumulate_grad(gradients[1:], i, j, weight_IJ, saved)
            gradients[0].copy_(self._positive_gradient(partitions))
        self.logits.finish(gradients[1:])
        return value, gradients

    def _value(self, *, shifted: bool) -> tuple[float, LogPartitions]:
        sums, smoothing_sum = self._new_sums(shifted=shifted), 0.0
        for i, j, logit_IJ, _ in self._tiles():
            smoothing_sum += self._smoothing_sum(logit_IJ, i, j)
            self._mask_(logit_IJ, i, j, -torch.inf)
            sums.add_(logit_IJ, i, j)
        partitions = self._add_positives(sums)
        return self._total(partitions, smoothing_sum), partitions

    def _partitions_of_tile(self, logit_IJ: Tensor, i: slice, j: slice, *, shifted: bool) -> LogPartitions:
        self._mask_(logit_IJ, i, j, -torch.inf)
        sums = self._new_sums(shifted=shifted)
        sums.add_(logit_IJ, i, j)
        return self._add_positives(sums)

    def _new_sums(self, *, shifted: bool) -> "_Sums":
        size, device = self.selection.size, self.positive_logits_N.device
        if shifted:
            return _ShiftedSums(size, device, self.sides, self.shift)
        return _RunningSums(size, device, self.sides)

    def _add_positives(self, sums: "_Sums") -> LogPartitions:
        # Positives are added separately in float64: they dominate the sums of a trained space.
        r_N, c_N = (torch.logaddexp(logs_N, self.positive_logits_N.double()) for logs_N in sums.logs())
        return LogPartitions(r_N, c_N, isinstance(sums, _ShiftedSums))

    def _is_complete(self, partitions: LogPartitions) -> bool:
        """Return whether every sum is large enough for terms lost to underflow to be negligible."""
        if self.selection.size == 0 or not partitions.shifted:
            return True
        lowest = min(float(logs_N.min()) for logs_N in partitions.logs[: self.sides])
        return lowest >= self.shift + _SMALLEST_LOG_SUM

    def _total(self, partitions: LogPartitions, smoothing_sum: float) -> float:
        positive_N, (_, smoothing, weight) = self.positive_logits_N.double(), self.options
        total = sum(float((logs_N - weight * positive_N).sum()) for logs_N in partitions.logs[: self.sides])
        smoothing_sum += self.sides * float((positive_N / self.keys_N).sum())
        value = (total - smoothing * smoothing_sum) * self.factor
        # A contrast is nonnegative; rounding may make it slightly negative.
        return max(0.0, value) if weight == 1 - smoothing else value

    def _positive_gradient(self, partitions: LogPartitions) -> Tensor:
        positive_N, (_, smoothing, weight) = self.positive_logits_N.double(), self.options
        probability_N = sum(torch.exp(positive_N - logs_N) for logs_N in partitions.logs[: self.sides])
        return (probability_N - self.sides * (smoothing / self.keys_N + weight)) * self.factor

    def _smoothing_sum(self, logit_IJ: Tensor, i: slice, j: slice) -> float:
        """Return sum_ij l_ij (1/k_i + 1/k_j) over the keys of a tile except the positives; 0 without smoothing."""
        if self.options.smoothing == 0:
            return 0.0
        copy_IJ = self._view(1, i, j).copy_(logit_IJ)
        self._mask_(copy_IJ, i, j, 0.0)
        total = (copy_IJ.sum(1).double() / self.keys_N[i]).sum()
        if self.options.both_sides:
            total += (copy_IJ.sum(0).double() / self.keys_N[j]).sum()
        return float(total)

    def _weights_(self, x_IJ: Tensor, i: slice, j: slice, partitions: LogPartitions) -> Tensor:
        """Replace logits, or their shifted exponentials, by the derivatives of the contrast, in place."""
        dtype, smoothing = x_IJ.dtype, self.options.smoothing
        softmax_ = self._shifted_softmax_ if partitions.shifted else self._softmax_
        weight_IJ = softmax_(x_IJ, i, j, partitions)
        if dtype == torch.float32 and self.wide_span:
            # Denormal numbers contribute nothing and are about 100 times slower to multiply on a CPU.
            torch.threshold_(weight_IJ, _SMALLEST_WEIGHT, 0.0)
        if smoothing > 0:
            even_N = smoothing * self.factor / self.keys_N
            if self.options.both_sides:
                weight_IJ -= torch.add(even_N[i, None], even_N[j], out=self._view(1, i, j))
            else:
                weight_IJ -= even_N[i, None]
        self._mask_(weight_IJ, i, j, 0.0)
        return weight_IJ

    def _shifted_softmax_(self, e_IJ: Tensor, i: slice, j: slice, partitions: LogPartitions) -> Tensor:
        row_I = (torch.exp(self.shift - partitions.rows_N[i]) * self.factor).to(e_IJ.dtype)
        if not self.options.both_sides:
            return e_IJ.mul_(row_I[:, None])
        column_J = (torch.exp(self.shift - partitions.columns_N[j]) * self.factor).to(e_IJ.dtype)
        return e_IJ.mul_(torch.add(row_I[:, None], column_J, out=self._view(1, i, j)))

    def _softmax_(self, logit_IJ: Tensor, i: slice, j: slice, partitions: LogPartitions) -> Tensor:
        spare_IJ, dtype = self._view(1, i, j), logit_IJ.dtype
        if self.options.both_sides:
            torch.exp(logit_IJ - partitions.columns_N[j].to(dtype), out=spare_IJ)
        logit_IJ.sub_(partitions.rows_N[i, None].to(dtype)).exp_()
        if self.options.both_sides:
            logit_IJ += spare_IJ
        return logit_IJ.mul_(self.factor)

    def _mask_(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        """Mask the diagonal and the pairs that are not keys: same-id rows and pairs masked by the logits."""
        if i == j:
            x_IJ.diagonal().fill_(value)
        for masked_IJ in (self.selection.same_id(i, j), self.logits.masked(i, j)):
            if masked_IJ is not None:
                x_IJ.masked_fill_(masked_IJ, value)

    def _tiles(self) -> Iterator[tuple[slice, slice, Tensor, Any]]:
        for i, j in rectangle(self.selection.size, self.selection.size, side=self.side):
            logit_IJ = self._view(0, i, j)
            saved = self.logits.tile(i, j, logit_IJ)
            yield i, j, logit_IJ, saved

    def _view(self, buffer: int, i: slice, j: slice) -> Tensor:
        rows, columns = i.stop - i.start, j.stop - j.start
        return self.buffers[buffer][: rows * columns].view(rows, columns)

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(tensor) for tensor in (self.positive_logits_N, *self.logits.tensors)]


class _Sums(Protocol):
    """Sums over rows and columns of the exponentials of masked logits."""

    def add_(self, logit_IJ: Tensor, i: slice, j: slice) -> None:
        """Add a tile, whose logits may be overwritten."""

    def logs(self) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the sums over rows and over columns, float64."""


class _ShiftedSums:
    """Sums with a single shift. The tile is overwritten with exp(l - shift)."""

    def __init__(self, size: int, device: torch.device, sides: int, shift: float) -> None:
        self.sides, self.shift = sides, shift
        self.rows_N, self.columns_N = (torch.zeros(size, dtype=torch.float64, device=device) for _ in range(2))

    def add_(self, logit_IJ: Tensor, i: slice, j: slice) -> None:
        e_IJ = _shifted_exp_(logit_IJ, self.shift)
        self.rows_N[i] += e_IJ.sum(1)
        if self.sides == 2:
            self.columns_N[j] += e_IJ.sum(0)

    def logs(self) -> tuple[Tensor, Tensor]:
        return torch.log(self.rows_N) + self.shift, torch.log(self.columns_N) + self.shift


class _RunningSums:
    """Sums with running maxima. The tile keeps its logits."""

    def __init__(self, size: int, device: torch.device, sides: int) -> None:
        self.sides = sides
        self.rows, self.columns = RunningLogSums(size, device), RunningLogSums(size, device)

    def add_(self, logit_IJ: Tensor, i: slice, j: slice) -> None:
        self.rows.add(logit_IJ, i)
        if self.sides == 2:
            self.columns.add(logit_IJ, j, dim=0)

    def logs(self) -> tuple[Tensor, Tensor]:
        return self.rows.logs(), self.columns.logs()


def _shifted_exp_(logit_IJ: Tensor, shift: float) -> Tensor:
    return (logit_IJ if shift == 0 else logit_IJ.sub_(shift)).exp_()
