"""Softmax contrast of matched rows: InfoNCE over any logits, with presence, ids and label smoothing.

Shapes: `B` items.
"""

import torch
from torch import Tensor

__all__ = ["contrast_keys", "row_log_partitions", "symmetric_contrast"]


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
    return (_contrast(logits_BB, keys_BB, label_smoothing) + _contrast(logits_BB.mT, keys_BB.mT, label_smoothing)) / 2


def _contrast(logits_BB: Tensor, keys_BB: Tensor, label_smoothing: float) -> Tensor:
    logz_B, rows_B = row_log_partitions(logits_BB, keys_BB)
    loss_B = logz_B - logits_BB.diagonal()
    if label_smoothing > 0:
        keys_per_row_B = keys_BB.sum(1).clamp(min=1)
        mean_logit_B = torch.where(keys_BB, logits_BB, 0.0).sum(1) / keys_per_row_B
        loss_B = (1 - label_smoothing) * loss_B + label_smoothing * (logz_B - mean_logit_B)
    return torch.where(rows_B, loss_B, 0.0).sum() / rows_B.sum().clamp(min=1)
