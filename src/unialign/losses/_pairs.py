"""Which pairs of modalities an anchor means, and InfoNCE over them: shared by the objectives that contrast pairs.

Shapes: `M` modalities, `B` items.
"""

from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.functional import cosine_contrast

__all__ = ["Pair", "modality_pairs", "pair_contrasts"]

Pair = tuple[int, int]


def modality_pairs(batch: Batch, anchor: str) -> list[Pair]:
    """The M - 1 pairs (anchor, other) of one anchor, or all M (M - 1) / 2 pairs for "all"."""
    modalities = range(len(batch.names))
    if anchor == "all":
        return [(m, n) for m in modalities for n in modalities if m < n]
    a = batch.index(anchor)
    return [(a, n) for n in modalities if n != a]


def pair_contrasts(
    batch: Batch, pairs: list[Pair], *, temperature: Tensor | float, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Symmetric InfoNCE of each pair over the rows that have both, by term name; a pair without rows is left out."""
    values = {}
    for m, n in pairs:
        present_B = batch.present_MB[m] & batch.present_MB[n]
        if bool(present_B.any()):
            values[f"contrast/{pair_name(batch.names[m], batch.names[n])}"] = cosine_contrast(
                batch.rows(m),
                batch.rows(n),
                temperature=temperature,
                present_B=present_B,
                ids_B=batch.ids_B,
                label_smoothing=label_smoothing,
                shard=batch.shard,
            )
    return values
