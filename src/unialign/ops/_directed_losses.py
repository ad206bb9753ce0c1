"""Compute the losses of a tile of queries and their derivatives; see `_directed_contrast`.

All logits are relative to l_ii, which cancels in the loss; the differences are small where rounding matters.

Shapes: `I` queries, `C` keys, `P` pairs of query and key with the same id, `X` other excluded pairs,
`K` negatives of each query.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Whether other keys with the id of the query are excluded or treated as positives.
SameIds = Literal["exclude", "positive"]

# Exponentials below this are set to 0, since denormal numbers are about 100 times slower to multiply on a CPU.
_SMALLEST = 1e-30
# With a larger scale, logits of unit rows may differ by more than 80, so that exponentials are denormal in float32.
_WIDE = 40.0


class ContrastSettings(NamedTuple):
    """Settings of a contrastive loss in one direction.

    Attributes:
        same_ids: `exclude` uses key i as the only positive and ignores other keys with the same id; `positive` uses all
            keys with the same id as positives.
        hardness: beta, at least 0.
        label_smoothing: s in [0, 1); must be 0 if the hardness is positive.
    """

    same_ids: SameIds = "exclude"
    hardness: float = 0.0
    label_smoothing: float = 0.0


class Keys(NamedTuple):
    """Keys of a tile that are not negatives.

    Attributes:
        own_I: column of the positive of each query.
        row_P, column_P: pairs of a query and a key of the batch with the same id, including the query's positive.
        row_X, column_X: pairs of a query and a shared negative with the same id.
        absent_IK: mask of the negatives in the last K columns that do not exist; None if all exist.
    """

    own_I: Tensor
    row_P: Tensor
    column_P: Tensor
    row_X: Tensor
    column_X: Tensor
    absent_IK: Tensor | None

    def fill_(self, x_IC: Tensor, value: float) -> Tensor:
        x_IC[self.row_P, self.column_P] = value
        x_IC[self.row_X, self.column_X] = value
        if self.absent_IK is not None:
            x_IC[:, x_IC.shape[1] - self.absent_IK.shape[1] :].masked_fill_(self.absent_IK, value)
        return x_IC

    def positives(self, same_ids: SameIds) -> tuple[Tensor, Tensor]:
        if same_ids == "positive":
            return self.row_P, self.column_P
        return torch.arange(len(self.own_I), device=self.own_I.device), self.own_I

    def count_negatives(self, columns: int) -> Tensor:
        rows = len(self.own_I)
        excluded_I = torch.bincount(self.row_P, minlength=rows) + torch.bincount(self.row_X, minlength=rows)
        if self.absent_IK is not None:
            excluded_I = excluded_I + self.absent_IK.sum(1)
        return columns - excluded_I


class RowLosses(NamedTuple):
    """Losses of queries, and intermediate values for their derivatives.

    Attributes:
        loss_I: L_i, in float64.
        logit_P: logits of the positives.
        log_positives_I, log_negatives_I: logs of the two sums in L_i; the second is -inf without negatives.
        exp_IC: exp(l_ij + beta c_ij) up to a factor per query; 0 where j is not a negative.
        total_I: row sums of `exp_IC`.
        count_I: number of negatives of each query.
    """

    loss_I: Tensor
    logit_P: Tensor
    log_positives_I: Tensor
    log_negatives_I: Tensor
    exp_IC: Tensor
    total_I: Tensor
    count_I: Tensor


def row_losses(
    cosine_IC: Tensor, own_I: Tensor, keys: Keys, *, scale: Tensor | float, settings: ContrastSettings
) -> RowLosses:
    """`own_I` is the cosine of each query and its positive, in float64."""
    (same_ids, hardness, smoothing), rows = settings, len(own_I)
    rounded_I = own_I.to(cosine_IC.dtype)
    logit_IC = (cosine_IC - rounded_I[:, None]) * scale
    row_P, column_P = keys.positives(same_ids)
    logit_P = logit_IC[row_P, column_P]
    log_positives_I = mean_positive_I = torch.zeros_like(own_I)
    if same_ids == "positive":
        log_positives_I, mean_positive_I = _sums_of_positives(logit_P, row_P, own_I)
    count_I = keys.count_negatives(cosine_IC.shape[1])
    mean_I = torch.zeros_like(own_I)
    if smoothing:
        total_I = keys.fill_(logit_IC, 0.0).sum(1).double() + mean_positive_I * torch.bincount(row_P, minlength=rows)
        mean_I = total_I / (count_I + torch.bincount(row_P, minlength=rows))
    wide = not isinstance(scale, Tensor) and scale + hardness > _WIDE
    hard_IC = logit_IC + hardness * cosine_IC if hardness else logit_IC
    exp_IC, total_I, log_hard_I = _exponentials(hard_IC, keys, wide=wide)
    log_negatives_I = log_hard_I - (own_I - rounded_I) * scale
    if hardness:
        log_weights_I = _exponentials(hardness * cosine_IC, keys)[2]
        log_negatives_I = log_negatives_I - torch.where(count_I > 0, log_weights_I, 0.0)
        log_negatives_I = log_negatives_I + torch.log(count_I.clamp(min=1).double())
    excess_I = torch.logaddexp(torch.zeros_like(own_I), log_negatives_I - log_positives_I)
    # The sum of two nonnegative numbers stays precise near 0, unlike a difference of logits.
    loss_I = excess_I + (log_positives_I - mean_positive_I)
    if smoothing:
        loss_I = loss_I + smoothing * (mean_positive_I - mean_I)
    return RowLosses(loss_I, logit_P, log_positives_I, log_negatives_I, exp_IC, total_I, count_I)


def row_weights_(
    cosine_IC: Tensor, keys: Keys, losses: RowLosses, *, scale: float, settings: ContrastSettings
) -> tuple[Tensor, Tensor | None]:
    """Return the derivatives of sum_i L_i with respect to the cosines and, if hardness > 0, the scale.

    The derivatives W with respect to the cosines overwrite `exp_IC`. If hardness is 0, W is the scale times the
    derivatives with respect to the logits, so the derivative with respect to the scale is sum_ij W_ij c_ij / scale.
    """
    (same_ids, hardness, smoothing), dtype, rows = settings, cosine_IC.dtype, len(losses.loss_I)
    share_I = torch.sigmoid(losses.log_negatives_I - losses.log_positives_I)
    row_P, column_P = keys.positives(same_ids)
    count_I = torch.bincount(row_P, minlength=rows).double()
    pi_P = torch.exp(losses.logit_P.double() - losses.log_positives_I[row_P])
    # With a single positive, pi_P - 1 / count_I is exactly 0.
    value_P = (pi_P - 1 / count_I[row_P]) - share_I[row_P] * pi_P
    weight_IC = losses.exp_IC
    weight_IC *= (share_I / torch.where(losses.total_I > 0, losses.total_I, 1.0)).to(dtype)[:, None]
    if smoothing:
        even_I = smoothing / (losses.count_I + count_I)
        keys.fill_(weight_IC.sub_(even_I.to(dtype)[:, None]), 0.0)
        value_P += smoothing / count_I[row_P] - even_I[row_P]
    if not hardness:
        weight_IC *= scale
        weight_IC[row_P, column_P] = (value_P * scale).to(dtype)
        return weight_IC, None
    by_scale = (weight_IC * cosine_IC).sum(1).double().sum()
    by_scale += (value_P * cosine_IC[row_P, column_P]).sum()
    u_IC, total_I, _ = _exponentials(hardness * cosine_IC, keys)
    u_IC *= (hardness * share_I / torch.where(total_I > 0, total_I, 1.0)).to(dtype)[:, None]
    weight_IC.mul_(scale + hardness).sub_(u_IC)
    weight_IC[row_P, column_P] = (value_P * scale).to(dtype)
    return weight_IC, by_scale


def _sums_of_positives(logit_P: Tensor, row_P: Tensor, zeros_like_I: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_p exp(l_ip) and mean_p l_ip of each query."""
    zero_I, logit_P = torch.zeros_like(zeros_like_I), logit_P.double()
    # The positive of each query has logit 0, so the maximum is at least 0.
    highest_I = zero_I.detach().scatter_reduce(0, row_P, logit_P.detach(), "amax")
    exp_P = torch.exp(logit_P - highest_I[row_P])
    log_sum_I = highest_I + torch.log(zero_I.index_add(0, row_P, exp_P))
    return log_sum_I, zero_I.index_add(0, row_P, logit_P) / torch.bincount(row_P, minlength=len(zero_I))


def _exponentials(logit_IC: Tensor, keys: Keys, *, wide: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Overwrite the logits with exp(l - m) of the negatives (0 elsewhere), m the row maximum; return them with their
    row sums and log sum exp(l).
    """
    keys.fill_(logit_IC, -torch.inf)
    highest_I = logit_IC.detach().amax(1)
    highest_I = torch.where(highest_I == -torch.inf, 0.0, highest_I)
    exp_IC = logit_IC.sub_(highest_I[:, None]).exp_()
    if wide and exp_IC.dtype == torch.float32 and not exp_IC.requires_grad:
        torch.threshold_(exp_IC, _SMALLEST, 0.0)
    total_I = exp_IC.sum(1).double()
    has_any_I = total_I > 0
    log_I = highest_I.double() + torch.log(torch.where(has_any_I, total_I, 1.0))
    return exp_IC, total_I, torch.where(has_any_I, log_I, -torch.inf)
