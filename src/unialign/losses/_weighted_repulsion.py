"""Repulsion whose negatives have weights, or that leaves the true pairs out of the sums."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.functional import PartitionPositive, weighted_partitions
from unialign.losses._call_inputs import inputs_of
from unialign.losses._modality_terms import Pair
from unialign.losses._similarity import SimilarityScale, scaled_rows, uses_similarity
from unialign.ops import Kernel


class Repulsion(NamedTuple):
    """Uniformities by modality, and cross-modal partitions by term name; undefined ones are omitted."""

    uniformities: Mapping[str, Tensor]
    partitions: Mapping[str, Tensor]


def weighted_kinds(scale: SimilarityScale, positive: PartitionPositive) -> tuple[str, ...]:
    """Return the kinds of terms that `weighted_repulsion` has to compute."""
    if uses_similarity(scale):
        return ("uniformity", "partition")
    return ("partition",) if positive == "excluded" else ()


def weighted_repulsion(
    batch: Batch,
    modalities: Sequence[int],
    pairs: Sequence[Pair],
    *,
    kernel: Kernel,
    temperatures: Sequence[Tensor | float],
    scale: SimilarityScale,
    positive: PartitionPositive,
) -> Repulsion:
    """Compute the repulsion within modalities and across pairs of modalities together, which share their weights.

    Args:
        temperatures: of the modalities, followed by those of the pairs.
    """
    if not modalities and not pairs:
        return Repulsion({}, {})
    found = weighted_partitions(
        batch,
        [*((m, m) for m in modalities), *pairs],
        kernel=kernel,
        temperatures=temperatures,
        similarity=scaled_rows(batch, inputs_of(batch).similarity, scale),
        positive=positive,
    )
    values = [part.value.to(batch.z_MBD.dtype) if part.defined else None for part in found]
    names = [batch.names[m] for m in modalities]
    pair_names = [f"partition/{pair_name(batch.names[m], batch.names[n])}" for m, n in pairs]
    return Repulsion(_defined(names, values[: len(names)]), _defined(pair_names, values[len(names) :]))


def _defined(names: Sequence[str], values: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}
