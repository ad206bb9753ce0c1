"""Softmax contrast of matched rows: InfoNCE over cosines or any other scores, with presence, ids and label smoothing.

Rows that lack either side leave both means. Other keys of a query's id leave its softmax. Label smoothing s gives 1 - s
to the positive and spreads s evenly over the keys that remain, the positive among them (as
`torch.nn.functional.cross_entropy`).

Shapes: `B` items, `N` of them take part, `D` width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unialign.distributed import Shard
from unialign.ops import (
    CosineLogits,
    KernelFunction,
    Logits,
    RowSelection,
    Sides,
    log_row_sums,
    mean_contrast,
    mean_excess,
    rowwise_backend,
    select_rows,
)

__all__ = ["contrast", "cosine_contrast", "self_contrast"]


def cosine_contrast(
    x_BD: Tensor,
    y_BD: Tensor,
    *,
    temperature: Tensor | float,
    present_B: Tensor,
    ids_B: Tensor | None,
    label_smoothing: float = 0.0,
    shard: Shard | None = None,
) -> Tensor:
    """Mean of the row-wise and the column-wise cross-entropy of x y^T / temperature with the diagonal as target.

    Args:
        x_BD, y_BD: unit rows.
        present_B: items that have both.

    Returns:
        A scalar of at least 0; 0 with zero gradient when no row is left.
    """
    chosen_rows = select_rows(present_B, ids_B, shard)
    x_ND, y_ND = chosen_rows.take(x_BD), chosen_rows.take(y_BD)
    scale = 1 / torch.as_tensor(temperature, dtype=x_BD.dtype, device=x_BD.device)
    backend = rowwise_backend(x_ND, divided=shard is not None)
    if backend is None:
        own_N = (x_ND * y_ND).sum(-1) * scale
        return contrast(CosineLogits, (x_ND, y_ND, scale), own_N, chosen_rows, label_smoothing=label_smoothing)
    excess = mean_excess(x_ND, y_ND, scale, members=chosen_rows, backend=backend)
    if label_smoothing == 0:
        return excess
    own = (x_ND * y_ND).sum() / max(1, chosen_rows.size)
    return excess + label_smoothing * scale * (own - _mean_cosine(x_ND, y_ND, chosen_rows))


def contrast(
    make: Callable[..., Logits],
    tensors: tuple[Tensor, ...],
    positive_logits_N: Tensor,
    chosen_rows: RowSelection,
    *,
    sides: Sides = "both",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The same over any scores.

    Args:
        make, tensors: see `unialign.ops._logits.Scores`.
        own_N: score of each query with its own key.
        sides: `rows` leaves the column-wise cross-entropy out.
    """
    return mean_contrast(
        make, tensors, positive_logits_N, members=chosen_rows, sides=sides, label_smoothing=label_smoothing
    )


def self_contrast(
    z_BD: Tensor, present_B: Tensor, ids_B: Tensor | None, *, temperature: float, shard: Shard | None = None
) -> Tensor:
    """`cosine_contrast` of rows with themselves, whose rows and columns are alike, at half its cost."""
    chosen_rows = select_rows(present_B, ids_B, shard)
    z_ND = chosen_rows.take(z_BD)
    if len(z_ND) == 0:
        return z_BD.sum() * 0.0
    profile = KernelFunction("clip", temperature)
    sums_N = log_row_sums(z_ND, profile=profile, members=chosen_rows, self_pairs="included")
    # The own key is a part of each sum: only rounding makes the difference negative.
    return (sums_N - ((z_ND * z_ND).sum(-1) - 1) / temperature).mean().clamp(min=0)


def _mean_cosine(x_ND: Tensor, y_ND: Tensor, chosen_rows: RowSelection) -> Tensor:
    """1/(2N) sum_i [ mean_j <x_i, y_j> + mean_j <x_j, y_i> ] over the keys of i, without a table of all pairs."""
    keys_N = chosen_rows.others(x_ND.dtype, x_ND.device) + 1
    total = (x_ND / keys_N[:, None]).sum(0) @ y_ND.sum(0) + x_ND.sum(0) @ (y_ND / keys_N[:, None]).sum(0)
    if chosen_rows.codes_N is not None:
        codes_N = chosen_rows.codes_N.long()
        groups = int(codes_N[-1]) + 1 if len(codes_N) else 0
        x_GD, y_GD = (z_ND.new_zeros(groups, z_ND.shape[1]).index_add(0, codes_N, z_ND) for z_ND in (x_ND, y_ND))
        keys_G = keys_N.new_ones(groups).index_copy(0, codes_N, keys_N)
        # Pairs of one id, but for a row's own key, are no keys.
        total = total - (2 * (x_GD * y_GD).sum(-1) / keys_G).sum() + (2 * (x_ND * y_ND).sum(-1) / keys_N).sum()
    return total / max(1, 2 * len(x_ND))
