"""Find rows that are not finite or have no direction (norm zero)."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BadRow", "first_bad_row", "has_direction", "usable_rows"]


def usable_rows(x: Tensor) -> Tensor:
    return has_direction(x.detach().abs().amax(-1))


def has_direction(largest: Tensor) -> Tensor:
    """Denormal float16 and bfloat16 entries are valid, since batches are converted to float32."""
    # The comparisons are False for NaN, infinity and rows too short to have a precise direction. The lower limit also
    # keeps the gradient, which grows like 1 / norm, in the dtype's range.
    dtype = torch.promote_types(largest.dtype, torch.float32)
    limits = torch.finfo(dtype)
    return (largest.to(dtype) >= limits.tiny / limits.eps) & (largest < torch.inf)


@dataclass(frozen=True)
class BadRow:
    """First invalid row; `what` is a defect such as `holds nan at column 3`, `others` the number of further rows."""

    row: int
    column: int | None
    what: str
    others: int

    @property
    def more(self) -> str:
        return f" ({self.others} more such rows)" if self.others else ""


def first_bad_row(x: Tensor, bad: Tensor) -> BadRow | None:
    if not bool(bad.any()):
        return None
    index = tuple(bad.nonzero()[0].tolist())
    values_D = x.detach()[index]
    wrong_D = ~torch.isfinite(values_D)
    column = None
    if bool(wrong_D.any()):
        column = int(wrong_D.nonzero()[0])
        what = f"holds {values_D[column].item()} at column {column}"
    else:
        largest = values_D.abs().max().item()
        what = f"is too short to have a direction: its largest entry is {largest:.3g}" if largest else "has norm zero"
    return BadRow(index[-1], column, what, int(bad.sum()) - 1)
