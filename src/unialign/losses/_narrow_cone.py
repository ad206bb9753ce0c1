"""How much of the repulsion is within modalities, if `partition_mix` is `auto`.

Encoders with random weights map all items into a narrow cone, in which UniAlign closes the cones before it separates
the items: see docs/findings/from_scratch.md.

Shapes: `M` modalities, `B` items, `D` dimension.
"""

from unialign.batch import Batch

__all__ = ["share_within"]

# Mean cosines between different items: below the first, the rows of a modality are not in a narrow cone; above the
# second, they are.
WIDE, NARROW = 0.25, 0.5
# The mean cosine of fewer rows depends mainly on which items are in the batch.
_FEWEST_ROWS = 8


def share_within(batch: Batch) -> float:
    """Return beta: 1 for c <= WIDE, 0 for c >= NARROW, linear between, with c the largest mean cosine of a modality.

    Modalities with fewer than eight rows are not considered. A beta of 1 is UniAlign.
    """
    count_M = batch.present_MB.sum(1)
    total_M = batch.z_MBD.detach().sum(1).square().sum(-1)
    cosine_M = (total_M - count_M) / (count_M * (count_M - 1)).clamp_min(1)
    narrowest = cosine_M.masked_fill(count_M < _FEWEST_ROWS, 0).max()
    return min(1.0, max(0.0, (NARROW - float(narrowest)) / (NARROW - WIDE)))
