"""Compute losses from full blocks of cosines: contrastive loss, pairwise sigmoid loss and uniformity.

A formula writes the derivatives of its value with respect to the cosines, up to a factor, to a preallocated block.
Positive logits are computed separately from the rows in float64, so that losses near 0 stay precise.

Shapes: `B` items, `D` dimension, `P` blocks.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Exponentials of logits up to _LARGEST and their sums are in float32's range (e^88). Sums with a log below
# _SMALLEST_LOG_SUM may lack terms that underflowed (e^-87).
_LARGEST, _SMALLEST_LOG_SUM = 80.0, -57.0
# Weights below this are set to 0, since denormal numbers are about 100 times slower to multiply on a CPU.
_SMALLEST_WEIGHT = 1e-30


class BlockResult(NamedTuple):
    """The derivative with respect to a cosine is the entry of the block times `factor` and `factor_P`."""

    value_P: Tensor
    factor: float = 1.0
    factor_P: Tensor | None = None
    by_positive_PB: Tensor | None = None
    by_parameters: tuple[Tensor, ...] = ()


class BlockFormula(ABC):
    """Loss formula for the cosines of rows x and y, with positive pairs on the diagonal."""

    @abstractmethod
    def evaluate_(
        self,
        x_PBD: Tensor,
        y_PBD: Tensor,
        block_PBB: Tensor,
        *,
        positive_PB: Tensor | None = None,
        chunk: slice = slice(None),
        gradient: bool,
    ) -> BlockResult:
        """With `gradient`, also write the derivatives with respect to the cosines to the block. `positive_PB` replaces
        the diagonal, whose derivatives are then 0.
        """

    def with_parameters(self, result: BlockResult, x_PBD: Tensor, by_x_PBD: Tensor, block_PBB: Tensor) -> BlockResult:
        return result


class ContrastBlocks(BlockFormula):
    """Cross-entropy over rows, and over columns if symmetric, with logits scale * cosine; see `_contrast`.

    Args:
        scale: positive, at most 300; its derivative is computed if `learned`.
        keys: (B, B) or (P, B, B), with 1 for keys and 0 for masked pairs and the diagonal; if None, only the
            diagonal is masked.
        smoothing: label smoothing; requires `keys=None`.
    """

    def __init__(
        self,
        scale: float,
        *,
        learned: bool,
        keys: Tensor | None = None,
        smoothing: float = 0.0,
        symmetric: bool = True,
    ) -> None:
        self.scale, self.learned, self.keys = scale, learned, keys
        self.smoothing, self.directions = smoothing, 2 if symmetric else 1
        self.shift = max(0.0, 1.001 * scale - _LARGEST)

    @staticmethod
    def supports(scale: float) -> bool:
        """Return whether exp(positive logit - shift) is in float64's range."""
        return scale <= 300

    def evaluate_(
        self,
        x_PBD: Tensor,
        y_PBD: Tensor,
        block_PBB: Tensor,
        *,
        positive_PB: Tensor | None = None,
        chunk: slice = slice(None),
        gradient: bool,
    ) -> BlockResult:
        # With beta=0, the previous contents of the block are ignored.
        torch.baddbmm(block_PBB, x_PBD, y_PBD.mT, beta=0, alpha=self.scale, out=block_PBB)
        given = positive_PB is not None
        logits_PBB = block_PBB.clone() if self.scale > -_SMALLEST_LOG_SUM else None
        positive_PB = (x_PBD * y_PBD).sum(-1).double().mul_(self.scale) if positive_PB is None else positive_PB.double()
        smoothing_P = self._smoothing(block_PBB, positive_PB)
        sums_SPB = self._exponential_sums(block_PBB, chunk)
        own_PB = torch.exp(positive_PB - self.shift if self.shift else positive_PB)
        total_SPB = sums_SPB + own_PB
        complete = logits_PBB is None or float(total_SPB.min()) >= math.exp(_SMALLEST_LOG_SUM)
        if logits_PBB is not None and not complete:
            return self._evaluate_wide_(block_PBB, logits_PBB, positive_PB, smoothing_P, chunk, given=given)
        value_P = torch.log1p(sums_SPB / own_PB).sum((0, 2))
        value_P = self._mean(value_P, positive_PB, smoothing_P)
        if not gradient:
            return BlockResult(value_P)
        inverse_SPB = total_SPB.reciprocal_()
        narrow_SPB = inverse_SPB.to(block_PBB.dtype)
        by_row_PB1 = narrow_SPB[0, ..., None]
        block_PBB.mul_(by_row_PB1 + narrow_SPB[1, :, None] if self.directions == 2 else by_row_PB1)
        return self._finish_(block_PBB, value_P, sums_SPB.mul_(inverse_SPB).sum(0), given=given)

    def with_parameters(self, result: BlockResult, x_PBD: Tensor, by_x_PBD: Tensor, block_PBB: Tensor) -> BlockResult:
        if not self.learned:
            return result
        return result._replace(by_parameters=((by_x_PBD * x_PBD).sum((1, 2)) / self.scale,))

    def _mean(self, value_P: Tensor, positive_PB: Tensor, smoothing_P: Tensor | float) -> Tensor:
        if self.smoothing > 0:
            value_P = value_P + self.smoothing * self.directions * positive_PB.sum(-1) - smoothing_P
        return value_P / (positive_PB.shape[-1] * self.directions)

    def _smoothing(self, logit_PBB: Tensor, positive_PB: Tensor) -> Tensor | float:
        if self.smoothing == 0:
            return 0.0
        total_P = logit_PBB.sum(-1).double().sum(-1) + (positive_PB - logit_PBB.diagonal(dim1=1, dim2=2)).sum(-1)
        return total_P * (self.smoothing * self.directions / logit_PBB.shape[-1])

    def _exponential_sums(self, block_PBB: Tensor, chunk: slice) -> Tensor:
        """Replace logits with exp(logit - shift), 0 where masked; return float64 sums (directions, P, B)."""
        (block_PBB.sub_(self.shift) if self.shift else block_PBB).exp_()
        keys = self._keys(chunk)
        if keys is None:
            block_PBB.diagonal(dim1=1, dim2=2).zero_()
        else:
            block_PBB.mul_(keys)
        if self.directions == 1:
            return block_PBB.sum(-1).double()[None]
        return torch.stack((block_PBB.sum(-1), block_PBB.sum(-2))).double()

    def _keys(self, chunk: slice) -> Tensor | None:
        return self.keys if self.keys is None or self.keys.ndim == 2 else self.keys[chunk]

    def _evaluate_wide_(
        self,
        block_PBB: Tensor,
        logits_PBB: Tensor,
        positive_PB: Tensor,
        smoothing_P: Tensor | float,
        chunk: slice,
        *,
        given: bool,
    ) -> BlockResult:
        """Use one shift per row and column, for logits that underflow with a single shift."""
        keys = self._keys(chunk)
        diagonal_BB = torch.eye(logits_PBB.shape[-1], dtype=torch.bool, device=logits_PBB.device)
        logits_PBB.masked_fill_(diagonal_BB if keys is None else keys == 0, -torch.inf)
        block_PBB.zero_()
        excess = []
        for dim in (-1, -2)[: self.directions]:
            rest_PB = torch.logsumexp(logits_PBB, dim).double()
            excess.append(torch.logaddexp(torch.zeros_like(positive_PB), rest_PB - positive_PB))
            logs_PB = (positive_PB + excess[-1]).to(logits_PBB.dtype)
            block_PBB += torch.exp(logits_PBB - logs_PB.unsqueeze(dim))
        excess_SPB = torch.stack(excess)
        value_P = self._mean(excess_SPB.sum((0, 2)), positive_PB, smoothing_P)
        return self._finish_(block_PBB, value_P, -torch.expm1(-excess_SPB).sum(0), given=given)

    def _finish_(self, block_PBB: Tensor, value_P: Tensor, others_PB: Tensor, *, given: bool) -> BlockResult:
        """`others_PB` is the probability of all negatives, summed over directions."""
        items = block_PBB.shape[-1]
        if block_PBB.dtype == torch.float32 and 2 * self.scale > _LARGEST:
            torch.threshold_(block_PBB, _SMALLEST_WEIGHT, 0.0)
        by_positive_PB = others_PB.neg_()
        if self.smoothing > 0:
            block_PBB -= self.directions * self.smoothing / items
            by_positive_PB += self.directions * self.smoothing * (1 - 1 / items)
        factor = 1 / (items * self.directions)
        diagonal_PB = block_PBB.diagonal(dim1=1, dim2=2)
        if given:
            diagonal_PB.zero_()
            return BlockResult(value_P, factor * self.scale, by_positive_PB=by_positive_PB * factor)
        diagonal_PB.copy_(by_positive_PB)
        return BlockResult(value_P, factor * self.scale)


class SigmoidBlocks(BlockFormula):
    """Pairwise sigmoid loss with logits scale * cosine + bias, in [-80, 80]; see `_softplus`.

    Args:
        scale, bias: their derivatives are computed if `learned`.
        keys: as in `ContrastBlocks`; masked pairs are excluded from the sum.
    """

    def __init__(self, scale: float, bias: float, *, learned: bool, keys: Tensor | None = None) -> None:
        self.scale, self.bias, self.learned, self.keys = scale, bias, learned, keys

    @staticmethod
    def supports(scale: float, bias: float) -> bool:
        """Return whether exponentials of the logits are in float32's range."""
        return scale != 0 and 1.001 * abs(scale) + abs(bias) <= _LARGEST

    def evaluate_(
        self,
        x_PBD: Tensor,
        y_PBD: Tensor,
        block_PBB: Tensor,
        *,
        positive_PB: Tensor | None = None,
        chunk: slice = slice(None),
        gradient: bool,
    ) -> BlockResult:
        items, bias_111 = block_PBB.shape[-1], x_PBD.new_full((1, 1, 1), self.bias)
        torch.baddbmm(bias_111, x_PBD, y_PBD.mT, alpha=self.scale, out=block_PBB)
        # -(scale * cosine + bias)
        against_PB = torch.rsub((x_PBD * y_PBD).sum(-1).double(), -self.bias, alpha=self.scale)
        block_PBB.exp_()
        if self.keys is None:
            block_PBB.diagonal(dim1=1, dim2=2).zero_()
        else:
            block_PBB.mul_(self.keys)
        spare_PBB = torch.log1p(block_PBB)
        value_P = functional.softplus(against_PB).add_(spare_PBB.sum(-1)).sum(-1).div_(items)
        if gradient:
            block_PBB.div_(torch.add(block_PBB, 1, out=spare_PBB))
            block_PBB.diagonal(dim1=1, dim2=2).copy_(against_PB.sigmoid_().neg_())
        return BlockResult(value_P, self.scale / items)

    def with_parameters(self, result: BlockResult, x_PBD: Tensor, by_x_PBD: Tensor, block_PBB: Tensor) -> BlockResult:
        if not self.learned:
            return result
        by_bias_P = block_PBB.sum((1, 2)) / block_PBB.shape[-1]
        return result._replace(by_parameters=((by_x_PBD * x_PBD).sum((1, 2)) / self.scale, by_bias_P))


class UniformityBlocks(BlockFormula):
    """Mean log of the row means of exp(rate (cosine - 1)), or log of the mean over all pairs; all ids must differ.

    Args:
        rate: positive, at most 40, so that exponentials are in float32's range.
        outer_log: whether to return the log of the mean over all pairs.
    """

    LARGEST_RATE = _LARGEST / 2

    def __init__(self, rate: float, *, outer_log: bool) -> None:
        self.rate, self.outer_log = rate, outer_log

    def evaluate_(
        self,
        x_PBD: Tensor,
        y_PBD: Tensor,
        block_PBB: Tensor,
        *,
        positive_PB: Tensor | None = None,
        chunk: slice = slice(None),
        gradient: bool,
    ) -> BlockResult:
        items = block_PBB.shape[-1]
        torch.baddbmm(block_PBB, x_PBD, y_PBD.mT, beta=0, alpha=self.rate, out=block_PBB).exp_()
        block_PBB.diagonal(dim1=1, dim2=2).zero_()
        sums_PB = block_PBB.sum(-1).double()
        offset = self.rate + math.log(items - 1)
        if self.outer_log:
            total_P = sums_PB.sum(-1)
            factor_P = (2 * self.rate / total_P).to(x_PBD.dtype)
            return BlockResult(torch.log(total_P) - (offset + math.log(items)), factor_P=factor_P)
        if gradient:
            inverse_PB = (1 / sums_PB).to(x_PBD.dtype)
            block_PBB.mul_(inverse_PB[..., None] + inverse_PB[:, None])
        return BlockResult(torch.log(sums_PB).mean(-1) - offset, self.rate / items)
