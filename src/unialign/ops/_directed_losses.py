"""Losses of a tile of queries and their derivatives, see `_directed_contrast`.

Shapes: `I` queries, `C` keys.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unialign.ops._log_sums import masked_logsumexp

# Whether keys with the query's id, other than its own, are excluded or positives.
SameIds = Literal["exclude", "positive"]

# Weights below this are set to 0: denormal numbers are about 100 times slower to multiply on a CPU.
_SMALLEST_WEIGHT = 1e-30

_Masks = tuple[Tensor, Tensor]


class ContrastSettings(NamedTuple):
    """Settings of a contrast in one direction.

    Attributes:
        same_ids: `exclude`: P_i is i, and other keys with its id are no keys · `positive`: P_i is all keys with its id.
        hardness: beta of at least 0.
        label_smoothing: s in [0, 1); 0 with a hardness.
    """

    same_ids: SameIds = "exclude"
    hardness: float = 0.0
    label_smoothing: float = 0.0


class RowLosses(NamedTuple):
    """Losses of queries, and what their derivatives need; all logits are relative to l_ii.

    Attributes:
        loss_I: L_i, in float64.
        logit_IC: logits in the dtype of the cosines.
        log_positives_I: log sum_p exp(l_ip).
        log_negatives_I: log of the weighted sum over the negatives; -inf without negatives.
        log_hard_I: log sum_j exp(l_ij + beta c_ij) over the negatives.
        log_weights_I: log sum_j exp(beta c_ij) over the negatives; None at beta 0.
    """

    loss_I: Tensor
    logit_IC: Tensor
    log_positives_I: Tensor
    log_negatives_I: Tensor
    log_hard_I: Tensor
    log_weights_I: Tensor | None


def row_losses(
    cosine_IC: Tensor, own_I: Tensor, masks: _Masks, *, scale: Tensor | float, settings: ContrastSettings
) -> RowLosses:
    """Return L_i of each query, computed with differentiable operations.

    Args:
        cosine_IC: cosines of queries and keys.
        own_I: cosine of each query and its own positive, in float64.
        masks: of the positives and of the negatives, which do not overlap.
    """
    positive_IC, negative_IC = masks
    _, hardness, smoothing = settings
    # The loss depends on differences of logits. Relative to l_ii they are small where rounding matters.
    rounded_I = own_I.to(cosine_IC.dtype)
    logit_IC = (cosine_IC - rounded_I[:, None]) * scale
    log_positives_I = mean_positive_I = torch.zeros_like(own_I)
    if settings.same_ids == "positive":
        log_positives_I = masked_logsumexp(logit_IC, ~positive_IC).double()
        mean_positive_I = _masked_mean(logit_IC, positive_IC)
    log_hard_I = masked_logsumexp(logit_IC + hardness * cosine_IC if hardness else logit_IC, ~negative_IC).double()
    log_negatives_I, log_weights_I = log_hard_I - (own_I - rounded_I) * scale, None
    if hardness:
        log_weights_I = masked_logsumexp(hardness * cosine_IC, ~negative_IC).double()
        count_I = negative_IC.sum(1)
        mean_I = log_negatives_I - torch.where(count_I > 0, log_weights_I, 0.0)
        log_negatives_I = mean_I + torch.log(count_I.clamp(min=1).double())
    excess_I = torch.logaddexp(torch.zeros_like(log_positives_I), log_negatives_I - log_positives_I)
    # The sum of two nonnegative numbers stays precise near 0, unlike a difference of logits.
    loss_I = excess_I + (log_positives_I - mean_positive_I)
    if smoothing:
        loss_I = loss_I + smoothing * (mean_positive_I - _masked_mean(logit_IC, positive_IC | negative_IC))
    return RowLosses(loss_I, logit_IC, log_positives_I, log_negatives_I, log_hard_I, log_weights_I)


def row_weights(
    cosine_IC: Tensor, masks: _Masks, losses: RowLosses, *, scale: float, settings: ContrastSettings
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of sum_i L_i with respect to the cosines (I, C) and to the scale."""
    positive_IC, negative_IC = masks
    (_, hardness, smoothing), dtype = settings, cosine_IC.dtype
    logit_IC = losses.logit_IC
    negative_share_I1 = torch.sigmoid(losses.log_negatives_I - losses.log_positives_I).to(dtype)[:, None]
    # pi - 1/|P| - share pi: with one positive, the first difference is exactly 0.
    target_IC = positive_IC / positive_IC.sum(1, keepdim=True, dtype=dtype)
    pi_IC = positive_IC.to(dtype)
    if settings.same_ids == "positive":
        pi_IC = _softmax(logit_IC, losses.log_positives_I, positive_IC)
    weight_IC = pi_IC - target_IC - negative_share_I1 * pi_IC
    hard_IC = logit_IC + hardness * cosine_IC if hardness else logit_IC
    q_IC = _softmax(hard_IC, losses.log_hard_I, negative_IC)
    weight_IC += negative_share_I1 * q_IC
    if smoothing:
        key_IC = positive_IC | negative_IC
        weight_IC += smoothing * (target_IC - key_IC / key_IC.sum(1, keepdim=True, dtype=dtype))
    by_scale = (weight_IC * cosine_IC).sum(1).double().sum()
    weight_IC *= scale
    if hardness and losses.log_weights_I is not None:
        u_IC = _softmax(hardness * cosine_IC, losses.log_weights_I, negative_IC)
        weight_IC += hardness * negative_share_I1 * (q_IC - u_IC)
    if dtype == torch.float32:
        weight_IC.masked_fill_(weight_IC.abs() < _SMALLEST_WEIGHT, 0.0)
    return weight_IC, by_scale


def _softmax(logit_IC: Tensor, log_sum_I: Tensor, kept_IC: Tensor) -> Tensor:
    """Return exp(logit - log sum) where kept and 0 elsewhere."""
    shift_I1 = torch.where(log_sum_I == -torch.inf, 0.0, log_sum_I).to(logit_IC.dtype)[:, None]
    return (logit_IC - shift_I1).masked_fill_(~kept_IC, -torch.inf).exp_()


def _masked_mean(logit_IC: Tensor, kept_IC: Tensor) -> Tensor:
    return logit_IC.masked_fill(~kept_IC, 0.0).sum(1).double() / kept_IC.sum(1)
