"""Loss terms of single modalities and pairs of modalities, shared by several objectives.

Shapes: `M` modalities, `B` items.
"""

from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.functional import cosine_contrast, log_potential

__all__ = ["Pair", "modality_log_potentials", "modality_pairs", "pair_contrasts"]

Pair = tuple[int, int]


def modality_pairs(batch: Batch, anchor: str) -> list[Pair]:
    """Return the M - 1 pairs (anchor, other) of an anchor, or all M (M - 1) / 2 pairs for "all"."""
    modalities = range(len(batch.names))
    if anchor == "all":
        return [(m, n) for m in modalities for n in modalities if m < n]
    a = batch.index(anchor)
    return [(a, n) for n in modalities if n != a]


def pair_contrasts(
    batch: Batch, pairs: list[Pair], *, temperature: Tensor | float, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return symmetric InfoNCE of each pair over items with both modalities, by term name; empty pairs are omitted."""
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


def modality_log_potentials(batch: Batch, *, t: float) -> dict[str, Tensor]:
    """Return log mean_{i != j} exp(-t |z_i - z_j|^2) of each modality where it is defined, by name."""
    values = {}
    for m, name in enumerate(batch.names):
        value, defined = log_potential(
            batch.rows(m), t=t, present_B=batch.present_MB[m], ids_B=batch.ids_B, shard=batch.shard
        )
        if bool(defined):
            values[name] = value
    return values
