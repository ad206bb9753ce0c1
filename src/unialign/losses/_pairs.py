"""Which pairs of modalities an anchor means, and InfoNCE over them: shared by the objectives that contrast pairs.

Shapes: `M` modalities, `B` items.
"""

from torch import Tensor

from unialign._checks import check_number, check_text
from unialign.embeddings import Batch
from unialign.errors import ConfigError
from unialign.functional._contrast import contrast_keys, symmetric_contrast

__all__ = ["Pair", "check_pair_anchor", "check_potential", "modality_pairs", "pair_contrasts"]

Pair = tuple[int, int]


def check_pair_anchor(anchor: object, objective: str) -> None:
    """Refuse an anchor that means no pairs: anything but a modality's name or "all"."""
    check_text("anchor", anchor)
    if anchor == "centroid":
        raise ConfigError(
            f"{objective} works on pairs of modalities; anchor must be a modality or 'all', not 'centroid'"
        )


def check_potential(t: object) -> None:
    """Refuse a t of exp(-t |x - y|^2) that is no positive number, or so large that float32 loses the cosines."""
    check_number("t", t, "a positive number of at most 1e5", lambda x: 0 < x <= 1e5)


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
            values[f"contrast/{batch.names[m]}-{batch.names[n]}"] = symmetric_contrast(
                batch.z_MBD[m] @ batch.z_MBD[n].mT / temperature,
                contrast_keys(present_B, batch.ids_B),
                label_smoothing=label_smoothing,
            )
    return values
