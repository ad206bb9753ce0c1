"""Checks on the way in and out of a space. Shapes: `B` rows, `W` width of the features, `D` width of the space."""

import torch
from torch import Tensor

from unialign.errors import NonFiniteError

__all__ = ["refuse_non_finite", "unit_rows"]


def refuse_non_finite(name: str, x_BW: Tensor, mask_B: Tensor | None, start: int) -> None:
    """NonFiniteError naming the first present row that is not finite; `start` is the number of row 0."""
    bad_BW = ~torch.isfinite(x_BW)
    if mask_B is not None:
        bad_BW &= mask_B[:, None]
    if bool(bad_BW.any()):
        row, column = bad_BW.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{name!r} row {start + row} holds {x_BW[row, column].item()} at column {column}; mark items without "
            f"{name!r} as absent with `present=`, or drop them"
        )


def unit_rows(name: str, raw_BD: Tensor, mask_B: Tensor | None, start: int) -> Tensor:
    """Unit rows, 0 where absent; NonFiniteError naming the first present row without a direction."""
    largest_B = raw_BD.abs().amax(-1)
    present_B = torch.ones_like(largest_B, dtype=torch.bool) if mask_B is None else mask_B
    usable_B = (largest_B >= torch.finfo(raw_BD.dtype).tiny) & (largest_B < torch.inf)
    if not bool((usable_B | ~present_B).all()):
        row = int((present_B & ~usable_B).nonzero()[0])
        raise NonFiniteError(
            f"{name!r} row {start + row} maps to an embedding whose largest entry is {largest_B[row].item()}, so it "
            f"has no direction; look at the row's features and the weights of the head"
        )
    # By the largest entry first, so that the squares of huge embeddings stay finite.
    scaled_BD = raw_BD / torch.where(usable_B, largest_B, 1.0)[:, None]
    unit_BD = scaled_BD / torch.linalg.vector_norm(scaled_BD, dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.where(present_B[:, None], unit_BD, 0.0)
