"""Softmax contrast of matched rows: InfoNCE over any logits, with presence, ids and label smoothing.

Shapes: `B` items.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["contrast_keys", "row_log_partitions", "self_contrast", "symmetric_contrast"]


def contrast_keys(present_B: Tensor, ids_B: Tensor | None) -> Tensor:
    """(B, B) mask of the keys that a query may see: present, and not another item of the same id."""
    keys_BB = present_B[:, None] & present_B[None, :]
    if ids_B is not None:
        same_BB = ids_B[:, None] == ids_B[None, :]
        keys_BB = keys_BB & (~same_BB | torch.eye(len(ids_B), dtype=torch.bool, device=ids_B.device))
    return keys_BB


def row_log_partitions(logits_BB: Tensor, keys_BB: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_k exp(logit_ik) over the keys of each row, finite but without meaning in rows that may not see their own
    key (absent items), and the mask of the other rows."""
    rows_B = keys_BB.diagonal()
    # A row without keys keeps all its (finite) logits, so that its unused log-sum-exp has no NaN gradient.
    return torch.logsumexp(torch.where(keys_BB | ~rows_B[:, None], logits_BB, -torch.inf), 1), rows_B


def symmetric_contrast(logits_BB: Tensor, keys_BB: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean of the row-wise and the column-wise cross-entropy with the diagonal as target.

    Rows that may not see their own key (absent items) leave both means. Label smoothing s gives 1 - s to the positive
    and spreads s evenly over the keys that remain, the positive among them (as `torch.nn.functional.cross_entropy`).

    Args:
        logits_BB: query i against key k.
        keys_BB: symmetric mask from `contrast_keys`.

    Returns:
        A scalar of at least 0; 0 with zero gradient when no row is left.
    """
    if _whole(keys_BB):
        value: Tensor = _WholeContrast.apply(logits_BB, label_smoothing)  # type: ignore[no-untyped-call]
        return value
    return (_contrast(logits_BB, keys_BB, label_smoothing) + _contrast(logits_BB.mT, keys_BB.mT, label_smoothing)) / 2


def self_contrast(z_BD: Tensor, present_B: Tensor, ids_B: Tensor | None, *, temperature: float) -> Tensor:
    """`symmetric_contrast` of rows with themselves, logits Z Z^T / temperature, at half its cost."""
    if ids_B is None and len(z_BD) > 0 and bool(present_B.all()):
        value: Tensor = _WholeSelfContrast.apply(z_BD, temperature)  # type: ignore[no-untyped-call]
        return value
    return symmetric_contrast(z_BD @ z_BD.mT / temperature, contrast_keys(present_B, ids_B))


def _whole(keys_BB: Tensor) -> bool:
    """Whether every query may see every key: the usual case, in which masks would cost more than the sums."""
    return len(keys_BB) > 0 and bool(keys_BB.all())


class _WholeContrast(torch.autograd.Function):
    """It keeps the logits only; of each sum autograd would keep its own copies."""

    @staticmethod
    def forward(ctx: Any, logits_BB: Tensor, label_smoothing: float) -> Tensor:
        ctx.save_for_backward(logits_BB)
        ctx.label_smoothing = label_smoothing
        losses = []
        for dim in (1, 0):
            logz_B = torch.logsumexp(logits_BB, dim)
            loss_B = (1 - label_smoothing) * (logz_B - logits_BB.diagonal())
            losses.append(loss_B + label_smoothing * (logz_B - logits_BB.mean(dim)))
        return torch.cat(losses).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (logits_BB,) = ctx.saved_tensors
        scale = gradient / (2 * len(logits_BB))
        # Softmaxes of the logits and not of what forward found: so a second derivative sees them move as well.
        slope_BB = torch.softmax(logits_BB, 1) + torch.softmax(logits_BB, 0)
        slope_BB.diagonal().sub_(2 * (1 - ctx.label_smoothing))
        if ctx.label_smoothing > 0:
            slope_BB.sub_(2 * ctx.label_smoothing / len(logits_BB))
        return slope_BB.mul_(scale), None


class _WholeSelfContrast(torch.autograd.Function):
    """Rows and columns are alike: one softmax, and one product for the gradient."""

    @staticmethod
    def forward(ctx: Any, z_BD: Tensor, temperature: float) -> Tensor:
        logits_BB = z_BD @ (z_BD / temperature).mT
        ctx.save_for_backward(z_BD, logits_BB)
        ctx.temperature = temperature
        return (torch.logsumexp(logits_BB, 1) - logits_BB.diagonal()).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        z_BD, logits_BB = ctx.saved_tensors
        softmax_BB = torch.softmax(logits_BB, 1)
        slope_BB = softmax_BB + softmax_BB.mT
        slope_BB.diagonal().sub_(2)
        return slope_BB @ (z_BD * (gradient / (len(z_BD) * ctx.temperature))), None


def _contrast(logits_BB: Tensor, keys_BB: Tensor, label_smoothing: float) -> Tensor:
    logz_B, rows_B = row_log_partitions(logits_BB, keys_BB)
    loss_B = logz_B - logits_BB.diagonal()
    if label_smoothing > 0:
        keys_per_row_B = keys_BB.sum(1).clamp(min=1)
        mean_logit_B = torch.where(keys_BB, logits_BB, 0.0).sum(1) / keys_per_row_B
        loss_B = (1 - label_smoothing) * loss_B + label_smoothing * (logz_B - mean_logit_B)
    return torch.where(rows_B, loss_B, 0.0).sum() / rows_B.sum().clamp(min=1)
