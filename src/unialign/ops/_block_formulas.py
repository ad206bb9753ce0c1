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
    def evaluate_(self, x_PBD: Tensor, y_PBD: Tensor, block_PBB: Tensor, *, gradient: bool) -> BlockResult:
        """With `gradient`, also write the derivatives with respect to the cosines to the block."""

    def with_parameters(self, result: BlockResult, x_PBD: Tensor, by_x_PBD: Tensor, block_PBB: Tensor) -> BlockResult:
        return result


class ContrastBlocks(BlockFormula):
    """Cross-entropy over rows and columns, with logits scale * cosine. The scale is at most 300.
    `keys` is 0 for masked pairs and the diagonal, else 1; label smoothing requires `keys=None`.
    """

    directions = 2

    def __init__(self, scale: float, *, learned: bool, keys: Tensor | None = None, smoothing: float = 0.0) -> None:
        self.scale, self.learned, self.keys, self.smoothing = scale, learned, keys, smoothing
        self.shift = max(0.0, 1.001 * scale - _LARGEST)

    @staticmethod
    def supports(scale: float) -> bool:
        """exp(positive logit - shift) is in float64's range."""
        return scale <= 300

    def evaluate_(self, x_PBD: Tensor, y_PBD: Tensor, block_PBB: Tensor, *, gradient: bool) -> BlockResult:
        # With beta=0, the previous contents of the block are ignored.
        torch.baddbmm(block_PBB, x_PBD, y_PBD.mT, beta=0, alpha=self.scale, out=block_PBB)
        logits_PBB = block_PBB.clone() if self.scale > -_SMALLEST_LOG_SUM else None
        positive_PB = self._positives(x_PBD, y_PBD)
        smoothing_P = self._smoothing(block_PBB, positive_PB)
        sums_SPB = self._exponential_sums(block_PBB)
        own_PB = torch.exp(positive_PB - self.shift if self.shift else positive_PB)
        total_SPB = sums_SPB + own_PB
        complete = logits_PBB is None or float(total_SPB.min()) >= math.exp(_SMALLEST_LOG_SUM)
        if logits_PBB is not None and not complete:
            return self._evaluate_wide_(block_PBB, logits_PBB, positive_PB, smoothing_P)
        value_P = torch.log1p(sums_SPB / own_PB).sum((0, 2))
        value_P = self._mean(value_P, positive_PB, smoothing_P)
        if not gradient:
            return BlockResult(value_P)
        inverse_SPB = total_SPB.reciprocal_()
        narrow_SPB = inverse_SPB.to(block_PBB.dtype)
        by_row_PB1 = narrow_SPB[0, ..., None]
        block_PBB.mul_(by_row_PB1 + narrow_SPB[1, :, None] if self.directions == 2 else by_row_PB1)
        return self._finish_(block_PBB, value_P, sums_SPB.mul_(inverse_SPB).sum(0))

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

    def _positives(self, x_PBD: Tensor, y_PBD: Tensor) -> Tensor:
        """Logits of the diagonal in float64."""
        return (x_PBD * y_PBD).sum(-1).double().mul_(self.scale)

    def _exponential_sums(self, block_PBB: Tensor) -> Tensor:
        """Replace logits with exp(logit - shift), 0 where masked; return float64 sums (directions, P, B)."""
        (block_PBB.sub_(self.shift) if self.shift else block_PBB).exp_()
        if self.keys is None:
            self._mask_(block_PBB, 0.0)
        else:
            block_PBB.mul_(self.keys)
        if self.directions == 1:
            return block_PBB.sum(-1).double()[None]
        return torch.stack((block_PBB.sum(-1), block_PBB.sum(-2))).double()

    def _mask_(self, block_PBB: Tensor, value: float) -> None:
        """Set the diagonal and masked pairs."""
        block_PBB.diagonal(dim1=1, dim2=2).fill_(value)
        if self.keys is not None:
            block_PBB.masked_fill_(self.keys == 0, value)

    def _evaluate_wide_(
        self, block_PBB: Tensor, logits_PBB: Tensor, positive_PB: Tensor, smoothing_P: Tensor | float
    ) -> BlockResult:
        """Use one shift per row and column, for logits that underflow with a single shift."""
        self._mask_(logits_PBB, -torch.inf)
        block_PBB.zero_()
        excess = []
        for dim in (-1, -2)[: self.directions]:
            rest_PB = torch.logsumexp(logits_PBB, dim).double()
            excess.append(torch.logaddexp(torch.zeros_like(positive_PB), rest_PB - positive_PB))
            logs_PB = (positive_PB + excess[-1]).to(logits_PBB.dtype)
            block_PBB += torch.exp(logits_PBB - logs_PB.unsqueeze(dim))
        excess_SPB = torch.stack(excess)
        value_P = self._mean(excess_SPB.sum((0, 2)), positive_PB, smoothing_P)
        return self._finish_(block_PBB, value_P, -torch.expm1(-excess_SPB).sum(0))

    def _finish_(self, block_PBB: Tensor, value_P: Tensor, others_PB: Tensor) -> BlockResult:
        """`others_PB` is the probability of all negatives, summed over directions."""
        items = block_PBB.shape[-1]
        if block_PBB.dtype == torch.float32 and 2 * self.scale > _LARGEST:
            torch.threshold_(block_PBB, _SMALLEST_WEIGHT, 0.0)
        by_positive_PB = others_PB.neg_()
        if self.smoothing > 0:
            block_PBB -= self.directions * self.smoothing / items
            by_positive_PB += self.directions * self.smoothing * (1 - 1 / items)
        return self._with_positives(block_PBB, by_positive_PB, value_P, 1 / (items * self.directions))

    def _with_positives(self, block_PBB: Tensor, by_positive_PB: Tensor, value_P: Tensor, factor: float) -> BlockResult:
        block_PBB.diagonal(dim1=1, dim2=2).copy_(by_positive_PB)
        return BlockResult(value_P, factor * self.scale)


class KeyContrastBlocks(ContrastBlocks):
    """Cross-entropy over rows with given logits of the positives, which replace the diagonal.

    `masked_K` are the positions of masked pairs among all entries of the blocks.
    """

    directions = 1

    def __init__(self, scale: float, *, learned: bool, positive_PB: Tensor, masked_K: Tensor) -> None:
        super().__init__(scale, learned=learned)
        self.positive_PB, self.masked_K = positive_PB, masked_K

    def chunk(self, blocks: slice) -> "KeyContrastBlocks":
        """Restrict to some of the blocks."""
        count, items = self.positive_PB.shape
        if blocks == slice(0, count):
            return self
        place_K, size = self.masked_K - blocks.start * items**2, (blocks.stop - blocks.start) * items**2
        return KeyContrastBlocks(
            self.scale,
            learned=self.learned,
            positive_PB=self.positive_PB[blocks],
            masked_K=place_K[(place_K >= 0) & (place_K < size)],
        )

    def _positives(self, x_PBD: Tensor, y_PBD: Tensor) -> Tensor:
        return self.positive_PB.double()

    def _mask_(self, block_PBB: Tensor, value: float) -> None:
        super()._mask_(block_PBB, value)
        block_PBB.view(-1).index_fill_(0, self.masked_K, value)

    def _with_positives(self, block_PBB: Tensor, by_positive_PB: Tensor, value_P: Tensor, factor: float) -> BlockResult:
        block_PBB.diagonal(dim1=1, dim2=2).zero_()
        return BlockResult(value_P, factor * self.scale, by_positive_PB=by_positive_PB * factor)


class SigmoidBlocks(BlockFormula):
    """Pairwise sigmoid loss with logits scale * cosine + bias. `keys` is 0 for excluded pairs, else 1."""

    def __init__(self, scale: float, bias: float, *, learned: bool, keys: Tensor | None = None) -> None:
        self.scale, self.bias, self.learned, self.keys = scale, bias, learned, keys

    def evaluate_(self, x_PBD: Tensor, y_PBD: Tensor, block_PBB: Tensor, *, gradient: bool) -> BlockResult:
        items, cosine_PBB = block_PBB.shape[-1], torch.bmm(x_PBD, y_PBD.mT)
        torch.mul(cosine_PBB, self.scale, out=block_PBB).add_(self.bias)
        # The loss of a pair is the softplus of its logit, negated for the pairs on the diagonal.
        diagonal_PB = block_PBB.diagonal(dim1=1, dim2=2).neg_()
        value_PBB = functional.softplus(block_PBB, threshold=_LARGEST)
        if self.keys is not None:
            value_PBB.mul_(self.keys)
        value_P = value_PBB.sum((1, 2)).div_(items)
        if not gradient:
            return BlockResult(value_P)
        block_PBB.sigmoid_()
        if self.keys is not None:
            block_PBB.mul_(self.keys)
        diagonal_PB.neg_()
        by_parameters: tuple[Tensor, ...] = ()
        if self.learned:
            by_parameters = cosine_PBB.mul_(block_PBB).sum((1, 2)) / items, block_PBB.sum((1, 2)) / items
        return BlockResult(value_P, self.scale / items, by_parameters=by_parameters)


class UniformityBlocks(BlockFormula):
    """Mean log of the row means of exp(rate (cosine - 1)), or log of the mean over all pairs; all ids must differ. The
    rate is at most 40, so that exponentials are in float32's range.
    """

    LARGEST_RATE = _LARGEST / 2

    def __init__(self, rate: float, *, outer_log: bool) -> None:
        self.rate, self.outer_log = rate, outer_log

    def evaluate_(self, x_PBD: Tensor, y_PBD: Tensor, block_PBB: Tensor, *, gradient: bool) -> BlockResult:
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
