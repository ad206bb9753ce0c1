"""Contrasts with both their log-partitions, over tiles of any scores: no table of N x N logits is ever formed.

With l_ij the score of query i and key j, r_i = log sum_j exp(l_ij), c_j = log sum_i exp(l_ij), over the keys of another
id and the own one, and k_i their number:

    1/(2N) sum_i [ r_i + c_i - 2 w l_ii - s (mean_j l_ij + mean_j l_ji) ]

s is the label smoothing, w = 1 - s in a contrast and 0 where the partitions alone are wanted. The slope by l_ij is
(exp(l_ij - r_i) + exp(l_ij - c_j) - s (1/k_i + 1/k_j)) / (2N), and on the diagonal w / N less. The diagonal is given,
since it can be had more exactly than a product gives it; the terms are summed in float64, since they nearly cancel in a
space that is trained.

Shapes: `N` members, `I` rows and `J` columns of a tile.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unialign.ops._backend import chosen
from unialign.ops._logits import Logits
from unialign.ops._once import first_order_only
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE, rectangle

__all__ = ["Sides", "mean_contrast"]

Sides = Literal["both", "rows"]

# exp of logits up to _LARGEST above the shift, and its sum over a tile, stay in float32's range (e^88).
_LARGEST = 80.0
# Below this log of a sum the entries that underflow (e^-87) might be missed: such a table is summed again below running
# maxima.
_LEAST = -57.0
# A weight below this is none.
_NOTHING = 1e-30
# So few rows are one tile, from which the gradient is made at once.
_ONE_TILE = 1024


def mean_contrast(
    make: Callable[..., Logits],
    tensors: tuple[Tensor, ...],
    positive_logits_N: Tensor,
    *,
    members: RowSelection,
    sides: Sides = "both",
    label_smoothing: float = 0.0,
    own_weight: float | None = None,
    side: int | None = None,
) -> Tensor:
    """The formula above, a scalar; `rows`: 1/N sum_i [ r_i - w l_ii - s mean_j l_ij ]. 0 without members.

    Args:
        make: makes the scores of the tensors.
        tensors: what the scores are differentiable by.
        own_N: the scores on the diagonal, differentiable.
        own_weight: w; 1 - s if None.
        side: rows of a tile; the result does not depend on it. None: all at once up to 1,024, else `SIDE`.
    """
    weights = _Weights(sides == "both", label_smoothing, 1 - label_smoothing if own_weight is None else own_weight)
    if chosen() == "reference":
        return _dense(make(*tensors), positive_logits_N, members, weights)
    if side is None:
        side = _ONE_TILE if members.size <= _ONE_TILE else SIDE
    value: Tensor = _MeanContrast.apply(make, members, weights, side, positive_logits_N, *tensors)  # type: ignore[no-untyped-call]
    return value


class _Weights(NamedTuple):
    """Both sides or the rows alone; s; w."""

    both: bool
    smoothing: float
    own: float


class _MeanContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        make: Callable[..., Logits],
        members: RowSelection,
        weights: _Weights,
        side: int,
        own_N: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        table = _Table(make(*tensors), own_N, members, weights, side)
        wanted = any(ctx.needs_input_grad)
        ctx.rest = make, members, weights, side
        if wanted and members.size <= side:
            value, gradients = table.value_and_gradients()
            ctx.at_once = True
            ctx.save_for_backward(own_N, *tensors, *gradients)
        else:
            value, r_N, c_N = table.value()
            ctx.at_once, ctx.narrow = False, table.narrow
            ctx.save_for_backward(own_N, r_N, c_N, *tensors)
        return own_N.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: under activation checkpointing a second look is refused
        with torch.no_grad():
            if ctx.at_once:
                gradients = [gradient * g for gradient in saved[len(saved) // 2 :]]
            else:
                own_N, r_N, c_N, *tensors = saved
                make, *rest = ctx.rest
                table = _Table(make(*tensors), own_N, *rest)
                table.narrow = ctx.narrow
                gradients = table.gradients(r_N, c_N)
                for gradient in gradients:
                    gradient.mul_(g)
        return (None,) * 4 + tuple(first_order_only(gradient, g, *saved) for gradient in gradients)


class _Table:
    """All tiles of the table, one at a time in one buffer."""

    def __init__(self, scores: Logits, own_N: Tensor, members: RowSelection, weights: _Weights, side: int) -> None:
        self.scores, self.own_N, self.members, self.side = scores, own_N, members, side
        self.items, (self.both, self.smoothing, self.own_weight) = members.size, weights
        self.share = 1 / max(1, self.items * (2 if self.both else 1))
        self.keys_N = members.others(own_N.dtype, own_N.device) + 1
        self.shift = max(0.0, scores.highest - _LARGEST)
        self.cold = scores.highest - scores.lowest > _LARGEST
        # One shift for all may let every entry of a row underflow: then it is found out and taken back.
        self.narrow = True
        longest = min(side, self.items)
        self.buffers = [own_N.new_empty(longest * longest) for _ in range(2)]

    def value(self) -> tuple[float, Tensor, Tensor]:
        """The value, r and c."""
        partitions: _Narrow | _Wide = _Narrow(self.own_N, self.shift) if self.narrow else _Wide(self.own_N)
        smoothed = 0.0
        for i, j, logit_IJ, _ in self.logits():
            if self.smoothing > 0:
                smoothed += self._mean_logits(logit_IJ, i, j)
            self._hide(logit_IJ, i, j, -torch.inf)
            partitions.add(logit_IJ, i, j, both=self.both)
        r_N, c_N = partitions.logs()
        if not self._sound(r_N, c_N):
            self.narrow = False
            return self.value()
        return self._total(r_N, c_N, smoothed), r_N, c_N

    def _total(self, r_N: Tensor, c_N: Tensor, smoothed: float) -> float:
        own_N, sides = self.own_N.double(), 2 if self.both else 1
        total = sum(float((partition_N - self.own_weight * own_N).sum()) for partition_N in (r_N, c_N)[:sides])
        smoothed += sides * float((own_N / self.keys_N).sum())
        value = (total - self.smoothing * smoothed) * self.share
        # A contrast is not negative, whatever the rounding.
        return max(0.0, value) if self.own_weight == 1 - self.smoothing else value

    def _sound(self, r_N: Tensor, c_N: Tensor) -> bool:
        """Whether no sum is so small that entries which underflow might be a part of it."""
        lowest = min(float(x_N.min()) for x_N in (r_N, c_N)[: 2 if self.both else 1]) if self.items else math.inf
        return not self.narrow or lowest >= self.shift + _LEAST

    def gradients(self, r_N: Tensor, c_N: Tensor) -> list[Tensor]:
        """Of the diagonal and of the scores' tensors."""
        gradients = [torch.zeros_like(tensor) for tensor in (self.own_N, *self.scores.tensors)]
        for i, j, logit_IJ, known in self.logits():
            exponent_IJ = _shifted(logit_IJ, self.shift).exp_() if self.narrow else logit_IJ
            weight_IJ = self._weights(exponent_IJ, i, j, r_N, c_N)
            self.scores.accumulate_grad(gradients[1:], i, j, weight_IJ, known)
        gradients[0].copy_(self._by_own(r_N, c_N))
        self.scores.finish(gradients[1:])
        return gradients

    def _by_own(self, r_N: Tensor, c_N: Tensor) -> Tensor:
        own_N, sides = self.own_N.double(), 2 if self.both else 1
        share_N = sum(torch.exp(own_N - partition_N) for partition_N in (r_N, c_N)[:sides])
        return (share_N - sides * (self.smoothing / self.keys_N + self.own_weight)) * self.share

    def value_and_gradients(self) -> tuple[float, list[Tensor]]:
        """Both from one tile that is the whole table."""
        gradients = [torch.zeros_like(tensor) for tensor in (self.own_N, *self.scores.tensors)]
        value = 0.0
        for i, j, logit_IJ, known in self.logits():
            smoothed = self._mean_logits(logit_IJ, i, j) if self.smoothing > 0 else 0.0
            self._hide(logit_IJ, i, j, -torch.inf)
            narrow = _Narrow(self.own_N, self.shift)
            # In place: the exponentials become the weights.
            narrow.add(logit_IJ, i, j, both=self.both)
            r_N, c_N = narrow.logs()
            if not self._sound(r_N, c_N):
                self.narrow = False
                known = self.scores.tile(i, j, logit_IJ)
                self._hide(logit_IJ, i, j, -torch.inf)
                wide = _Wide(self.own_N)
                wide.add(logit_IJ, i, j, both=self.both)
                r_N, c_N = wide.logs()
            value = self._total(r_N, c_N, smoothed)
            weight_IJ = self._weights(logit_IJ, i, j, r_N, c_N)
            self.scores.accumulate_grad(gradients[1:], i, j, weight_IJ, known)
            gradients[0].copy_(self._by_own(r_N, c_N))
        self.scores.finish(gradients[1:])
        return value, gradients

    def logits(self) -> Iterator[tuple[slice, slice, Tensor, Any]]:
        for i, j in rectangle(self.items, self.items, side=self.side):
            logit_IJ = self._view(0, i, j)
            known = self.scores.tile(i, j, logit_IJ)
            yield i, j, logit_IJ, known

    def _view(self, buffer: int, i: slice, j: slice) -> Tensor:
        rows, columns = i.stop - i.start, j.stop - j.start
        return self.buffers[buffer][: rows * columns].view(rows, columns)

    def _hide(self, x_IJ: Tensor, i: slice, j: slice, value: float) -> None:
        """Overwrite what is no key: other items of one id, which stand side by side, and what the scores forbid.

        The diagonal too: own keys are added apart, in float64, since a trained space is made of them.
        """
        if i == j:
            x_IJ.diagonal().fill_(value)
        for hidden_IJ in (self.members.same_id(i, j), self.scores.masked(i, j)):
            if hidden_IJ is not None:
                x_IJ.masked_fill_(hidden_IJ, value)

    def _mean_logits(self, logit_IJ: Tensor, i: slice, j: slice) -> float:
        """sum_ij l_ij (1/k_i + 1/k_j) over the keys that count, but for the own ones."""
        copy_IJ = self._view(1, i, j).copy_(logit_IJ)
        self._hide(copy_IJ, i, j, 0.0)
        total = (copy_IJ.sum(1).double() / self.keys_N[i]).sum()
        if self.both:
            total += (copy_IJ.sum(0).double() / self.keys_N[j]).sum()
        return float(total)

    def _weights(self, logit_IJ: Tensor, i: slice, j: slice, r_N: Tensor, c_N: Tensor) -> Tensor:
        """The slope by each logit, in the place of the logits, or of their exponentials where the table is narrow."""
        dtype, spare_IJ, weight_IJ = logit_IJ.dtype, self._view(1, i, j), logit_IJ
        if self.narrow:
            row_I = (torch.exp(self.shift - r_N[i]) * self.share).to(dtype)
            if self.both:
                column_J = (torch.exp(self.shift - c_N[j]) * self.share).to(dtype)
                weight_IJ.mul_(torch.add(row_I[:, None], column_J, out=spare_IJ))
            else:
                weight_IJ.mul_(row_I[:, None])
        else:
            if self.both:
                torch.exp(logit_IJ - c_N[j].to(dtype), out=spare_IJ)
            weight_IJ.sub_(r_N[i, None].to(dtype)).exp_()
            if self.both:
                weight_IJ += spare_IJ
            weight_IJ *= self.share
        if dtype == torch.float32 and self.cold:
            # Products with denormal numbers take a CPU a hundred times as long, and are nothing here.
            torch.threshold_(weight_IJ, _NOTHING, 0.0)
        if self.smoothing > 0:
            even_N = self.smoothing * self.share / self.keys_N
            if self.both:
                weight_IJ -= torch.add(even_N[i, None], even_N[j], out=spare_IJ)
            else:
                weight_IJ -= even_N[i, None]
        self._hide(weight_IJ, i, j, 0.0)
        return weight_IJ


def _shifted(logit_IJ: Tensor, shift: float) -> Tensor:
    return logit_IJ if shift == 0 else logit_IJ.sub_(shift)


class _Narrow:
    """Sums of exponentials with one shift for all."""

    def __init__(self, like_N: Tensor, shift: float) -> None:
        self.shift, self.own_N = shift, like_N.double()
        self.rows_N, self.columns_N = (torch.zeros_like(like_N, dtype=torch.float64) for _ in range(2))

    def add(self, logit_IJ: Tensor, i: slice, j: slice, *, both: bool) -> None:
        e_IJ = _shifted(logit_IJ, self.shift).exp_()
        self.rows_N[i] += e_IJ.sum(1)
        if both:
            self.columns_N[j] += e_IJ.sum(0)

    def logs(self) -> tuple[Tensor, Tensor]:
        rows_N, columns_N = (
            torch.logaddexp(torch.log(sums_N) + self.shift, self.own_N) for sums_N in (self.rows_N, self.columns_N)
        )
        return rows_N, columns_N


class _Wide:
    """Sums of exponentials below a running maximum."""

    def __init__(self, like_N: Tensor) -> None:
        self.own_N = like_N.double()
        self.sums = [torch.zeros_like(like_N, dtype=torch.float64) for _ in range(2)]
        self.highest = [torch.full_like(total_N, -torch.inf) for total_N in self.sums]

    def add(self, logit_IJ: Tensor, i: slice, j: slice, *, both: bool) -> None:
        for place, dim, total_N, highest_N in zip((i, j), (1, 0), self.sums, self.highest, strict=True):
            if dim == 0 and not both:
                return
            # The shift as it is subtracted, in the logits' dtype: so it cancels exactly.
            higher = torch.maximum(highest_N[place], logit_IJ.amax(dim).double())
            shift = torch.where(higher == -torch.inf, 0.0, higher)
            e_IJ = torch.exp(logit_IJ - shift.to(logit_IJ.dtype).unsqueeze(dim))
            total_N[place] = total_N[place] * torch.exp(highest_N[place] - shift) + e_IJ.sum(dim)
            highest_N[place] = higher

    def logs(self) -> tuple[Tensor, Tensor]:
        rows_N, columns_N = (
            torch.logaddexp(torch.where(total_N > 0, torch.log(total_N) + highest_N, -torch.inf), self.own_N)
            for total_N, highest_N in zip(self.sums, self.highest, strict=True)
        )
        return rows_N, columns_N


def _dense(scores: Logits, own_N: Tensor, members: RowSelection, weights: _Weights) -> Tensor:
    """The same by the whole table and autograd."""
    if members.size == 0:
        return own_N.sum()
    everything = slice(0, members.size)
    own_NN = torch.eye(members.size, dtype=torch.bool, device=own_N.device)
    logit_NN = torch.where(own_NN, own_N[:, None], scores.dense())
    hidden_NN = members.same_id_table(own_N.device)
    forbidden_NN = scores.masked(everything, everything)
    if forbidden_NN is not None:
        hidden_NN = hidden_NN | forbidden_NN
    hidden_NN = hidden_NN & ~own_NN
    total = own_N.new_zeros(())
    for dim in (1, 0)[: 2 if weights.both else 1]:
        partition_N = torch.logsumexp(logit_NN.masked_fill(hidden_NN, -torch.inf), dim)
        total = total + (partition_N - weights.own * own_N).sum()
        if weights.smoothing > 0:
            keys_N = (~hidden_NN).sum(dim)
            total = total - weights.smoothing * (logit_NN.masked_fill(hidden_NN, 0.0).sum(dim) / keys_N).sum()
    return total / (members.size * (2 if weights.both else 1))
