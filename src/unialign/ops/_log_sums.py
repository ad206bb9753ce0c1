"""Compute log-sum-exp over tiles of logits, in float64, with a constant shift or with running maxima.

For each tile, set excluded logits to -inf, call `prepare_` once, and add the tile to the sums of rows and columns.
"""

import torch
from torch import Tensor


class ShiftedLogSums:
    """A constant shift prevents overflow and underflow."""

    def __init__(self, rows: int, device: torch.device, shift: float = 0.0) -> None:
        self.shift = shift
        self.total_N = torch.zeros(rows, dtype=torch.float64, device=device)

    def prepare_(self, logit_IJ: Tensor) -> Tensor:
        return shifted_exp_(logit_IJ, self.shift)

    def add(self, e_IJ: Tensor, rows: slice, *, dim: int = 1) -> None:
        """Add a prepared tile to the sums of its rows (`dim=1`) or columns (`dim=0`)."""
        self.total_N[rows] += e_IJ.sum(dim)

    def logs(self) -> Tensor:
        return torch.log(self.total_N) + self.shift


class RunningLogSums:
    """Running maxima permit logits of any range."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.highest_N = torch.full((rows,), -torch.inf, dtype=torch.float64, device=device)
        self.total_N = torch.zeros_like(self.highest_N)

    def prepare_(self, logit_IJ: Tensor) -> Tensor:
        return logit_IJ

    def add(self, logit_IJ: Tensor, rows: slice, *, dim: int = 1) -> None:
        higher = torch.maximum(self.highest_N[rows], logit_IJ.amax(dim).double())
        # The shift is 0 while all logits are -inf, since -inf - (-inf) is NaN.
        shift = torch.where(higher == -torch.inf, 0.0, higher)
        # The dtype of the logits represents the maximum exactly, so the shift cancels at the end.
        e_IJ = torch.exp(logit_IJ - shift.to(logit_IJ.dtype).unsqueeze(dim))
        self.total_N[rows] = self.total_N[rows] * torch.exp(self.highest_N[rows] - shift) + e_IJ.sum(dim)
        self.highest_N[rows] = higher

    def logs(self) -> Tensor:
        return torch.where(self.total_N > 0, self.highest_N + torch.log(self.total_N), -torch.inf)


def shifted_exp_(logit_IJ: Tensor, shift: float) -> Tensor:
    return (logit_IJ if shift == 0 else logit_IJ.sub_(shift)).exp_()


def masked_logsumexp(logit_NK: Tensor, masked_NK: Tensor) -> Tensor:
    """-inf with zero gradient for fully masked rows."""
    # The log-sum-exp of a fully masked row would have a NaN gradient.
    empty_N1 = masked_NK.all(1, keepdim=True)
    sums_N = torch.logsumexp(logit_NK.masked_fill(masked_NK & ~empty_N1, -torch.inf), 1)
    return torch.where(empty_N1[:, 0], -torch.inf, sums_N)
