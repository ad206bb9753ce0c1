"""Log-sum-exp over tiles of logits with running maxima, so that no exponential overflows."""

import torch
from torch import Tensor

__all__ = ["RunningLogSums"]


class RunningLogSums:
    """log sum exp of each of N rows (or columns), in float64.

    Args:
        rows: N.
        device: of the logits.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.highest_N = torch.full((rows,), -torch.inf, dtype=torch.float64, device=device)
        self.total_N = torch.zeros_like(self.highest_N)

    def add(self, logit_IJ: Tensor, rows: slice, *, dim: int = 1) -> None:
        """Add the exponentials of a tile along `dim` to the sums of its rows (`dim` 1) or columns (`dim` 0)."""
        higher = torch.maximum(self.highest_N[rows], logit_IJ.amax(dim).double())
        # The shift is 0 while all logits are -inf, since -inf - -inf is NaN.
        shift = torch.where(higher == -torch.inf, 0.0, higher)
        # The maximum is exact in the dtype of the logits, so the shift cancels at the end.
        e_IJ = torch.exp(logit_IJ - shift.to(logit_IJ.dtype).unsqueeze(dim))
        self.total_N[rows] = self.total_N[rows] * torch.exp(self.highest_N[rows] - shift) + e_IJ.sum(dim)
        self.highest_N[rows] = higher

    def logs(self) -> Tensor:
        """Return (N,) log sums; -inf where a row has no finite logit."""
        return torch.where(self.total_N > 0, self.highest_N + torch.log(self.total_N), -torch.inf)
