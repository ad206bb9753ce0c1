"""InfoNCE of pairs with a direction, several positives, hard negatives or additional negatives.

Shapes: `B` items, `N` items with both modalities, `D` dimension.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional import cosine_contrast
from unialign.losses._call_inputs import inputs_of
from unialign.losses._modality_terms import Pair, PairTemperatures, pair_contrasts, pair_values
from unialign.ops import ContrastSettings, RowSelection, directed_contrast

# The modality of a pair that provides the queries: each in turn, the first, or the second.
Direction = Literal["both", "forward", "backward"]


def extended_contrasts(
    batch: Batch,
    pairs: list[Pair],
    *,
    temperature: PairTemperatures,
    direction: Direction,
    settings: ContrastSettings,
) -> dict[str, Tensor]:
    """`forward` takes queries from the first modality of a pair and keys from the second."""
    if isinstance(temperature, list):
        of_pairs = zip(pairs, temperature, strict=True)
        options: dict[str, Any] = {"direction": direction, "settings": settings}
        parts = [extended_contrasts(batch, [pair], temperature=tau, **options) for pair, tau in of_pairs]
        return {name: value for part in parts for name, value in part.items()}
    several_positives = settings.same_ids == "positive" and batch.ids_B is not None
    if direction == "both" and not (several_positives or settings.hardness > 0 or inputs_of(batch).negatives):
        return pair_contrasts(batch, pairs, temperature=temperature, label_smoothing=settings.label_smoothing)
    values: dict[str, Tensor] = {}
    for m, n in pairs:
        ways = {"both": [(m, n), (n, m)], "forward": [(m, n)], "backward": [(n, m)]}[direction]

        def contrast(x_BD: Tensor, y_BD: Tensor, selection: RowSelection, ways: list[Pair] = ways) -> Tensor:
            if _is_plain(batch, ways, selection, settings):
                return cosine_contrast(
                    x_BD, y_BD, selection, temperature=temperature, label_smoothing=settings.label_smoothing
                )
            parts = [_one_way(batch, way, selection, temperature, settings) for way in ways]
            return torch.stack(parts).mean()

        values |= pair_values(contrast, batch, [(m, n)], "contrast")
    return values


def _is_plain(batch: Batch, ways: list[Pair], selection: RowSelection, settings: ContrastSettings) -> bool:
    """The faster symmetric InfoNCE then computes the same value."""
    several_positives = settings.same_ids == "positive" and selection.codes_N is not None
    negatives = inputs_of(batch).negatives
    further = any(batch.names[key] in negatives for _, key in ways)
    return len(ways) == 2 and not (several_positives or settings.hardness > 0 or further)


def _one_way(
    batch: Batch, way: Pair, selection: RowSelection, temperature: Tensor | float, settings: ContrastSettings
) -> Tensor:
    q_ND, k_ND = (selection.take(batch.rows(m)) for m in way)
    further = inputs_of(batch).negatives.get(batch.names[way[1]])
    ids_N = None if batch.ids_B is None else selection.take(batch.ids_B)
    return directed_contrast(
        q_ND,
        k_ND,
        1 / torch.as_tensor(temperature, dtype=q_ND.dtype, device=q_ND.device),
        selection=selection,
        settings=settings,
        negatives=None if further is None else further.of(selection, q_ND, ids_N),
    )
