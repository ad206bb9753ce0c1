"""Checks on the way in and out of a space. Shapes: `B` rows, `W` width of the features, `D` width of the space."""

import torch
from torch import Tensor

from unialign.batch import first_bad_row, usable_rows
from unialign.errors import NonFiniteError

__all__ = ["refuse_non_finite", "unit_rows"]


def refuse_non_finite(name: str, x_BW: Tensor, mask_B: Tensor | None, start: int) -> None:
    """NonFiniteError naming the first present row that is not finite; `start` is the number of row 0."""
    bad_B = ~torch.isfinite(x_BW).all(-1)
    bad = first_bad_row(x_BW, bad_B if mask_B is None else bad_B & mask_B)
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {start + bad.row} {bad.what}{bad.more}; mark items without {name!r} as absent with "
            f"`present=`, or drop them"
        )


def unit_rows(name: str, raw_BD: Tensor, mask_B: Tensor | None, start: int) -> Tensor:
    """Unit rows, 0 where absent; NonFiniteError naming the first present row without a direction."""
    largest_B, usable_B = usable_rows(raw_BD)
    present_B = torch.ones_like(usable_B) if mask_B is None else mask_B
    bad = first_bad_row(raw_BD, present_B & ~usable_B)
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {start + bad.row} maps to an embedding that {bad.what}{bad.more}; "
            f"look at the row's features and the weights of the head"
        )
    # By the largest entry first, so that the squares of huge embeddings stay finite.
    scaled_BD = raw_BD / torch.where(usable_B, largest_B, 1.0)[:, None]
    unit_BD = scaled_BD / torch.linalg.vector_norm(scaled_BD, dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.where(present_B[:, None], unit_BD, 0.0)
