"""The health monitor: signs that a run is going wrong while its loss still looks fine.

Shapes: `M` modalities, `B` items, `D` width.
"""

import math
import warnings
from collections.abc import Collection, Iterable

import torch

from unialign.batch import Batch
from unialign.geometry import effective_rank
from unialign.losses import BoundedParameter, LossTerm, Objective, weighted_sum

__all__ = ["HealthMonitor", "HealthWarning"]

# Mean cosine between different items of one modality above which they are hardly told apart.
COLLAPSED_COSINE = 0.95
# Fraction of the available directions below which a modality lives in a corner of the space.
TINY_RANK = 0.02
BALANCED = (0.1, 10.0)
# Eigenvalues of more rows than this cost more than they tell.
_SAMPLE = 512


class HealthWarning(UserWarning):
    """Something about a training run that deserves a look.

    Attributes:
        code: what it is, such as `collapse/text`, `rank/text`, `temperature/low`, `gradient_ratio`, `environment`.
        step: completed steps when it was seen first. Each code is reported once in a run.
    """

    # The defaults are for pickle, which calls with the message alone and then restores the attributes.
    def __init__(self, message: str, *, code: str = "", step: int = 0) -> None:
        super().__init__(message)
        self.message, self.code, self.step = message, code, step


class HealthMonitor:
    """Looks at a live batch every now and then; collects `HealthWarning`s, each code once, until `say` emits them.

    Args:
        earlier: warnings of the part of the run before a resumption.
        frozen: modalities that stay where they are. What is attracted to one cannot collapse with it, so that a weak
            repulsion is a choice (of generation, for one) and no warning.
    """

    def __init__(self, earlier: Iterable[HealthWarning] = (), *, frozen: Collection[str] = ()) -> None:
        self.warnings: list[HealthWarning] = list(earlier)
        self.frozen = frozen
        self._unsaid: list[HealthWarning] = []

    def look(self, objective: Objective, batch: Batch, terms: dict[str, LossTerm], *, step: int) -> dict[str, float]:
        """Measure one batch before its backward pass; returns numbers for the log.

        `cosine/<modality>` (mean over pairs of items), `rank/<modality>` (effective rank) and, for objectives that
        weigh an alignment against terms that repel, `gradient_ratio`.
        """
        numbers = self._look_at_spread(batch, step)
        self._look_at_bounds(objective, step)
        # The advice is about a weight: without one there is nothing to turn.
        ratio = gradient_ratio(batch, terms) if hasattr(objective, "alignment_weight") else None
        if ratio is not None:
            numbers["gradient_ratio"] = ratio
            low = 0.0 if self.frozen else BALANCED[0]
            if not low <= ratio <= BALANCED[1]:
                advice = (
                    "items repel much more than true pairs attract: raise alignment_weight"
                    if ratio > 1
                    else "true pairs attract much more than items repel, the way to collapse: lower alignment_weight"
                )
                self.warn(
                    f"the gradient of the repelling terms is {ratio:.3g} times that of the alignment; {advice}",
                    code="gradient_ratio",
                    step=step,
                )
        return numbers

    def warn(self, message: str, *, code: str, step: int) -> None:
        """Collect, once for each code."""
        if any(known.code == code for known in self.warnings):
            return
        warning = HealthWarning(f"step {step}: {message}", code=code, step=step)
        self.warnings.append(warning)
        self._unsaid.append(warning)

    def say(self) -> list[HealthWarning]:
        """Emit what was collected since the last call, and return it. Not inside a step: a filter may raise."""
        new, self._unsaid = self._unsaid, []
        for warning in new:
            warnings.warn(warning, stacklevel=2)
        return new

    def _look_at_spread(self, batch: Batch, step: int) -> dict[str, float]:
        numbers: dict[str, float] = {}
        z_MBD = batch.z_MBD.detach()
        for m, name in enumerate(batch.names):
            z_BD = z_MBD[m][batch.present_MB[m]][:_SAMPLE]
            rows = len(z_BD)
            if rows < 2:
                continue
            cosine = (float(z_BD.double().sum(0).square().sum()) - rows) / (rows * (rows - 1))
            numbers[f"cosine/{name}"] = cosine
            if cosine > COLLAPSED_COSINE:
                self.warn(
                    f"{name!r} is collapsing: different items have a mean cosine of {cosine:.3f}; "
                    f"check temperature and learning rate, and that items repel each other enough",
                    code=f"collapse/{name}",
                    step=step,
                )
            rank = float(effective_rank(z_BD))
            numbers[f"rank/{name}"] = rank
            available = min(rows - 1, z_BD.shape[1])
            # A space that is one point has been reported above.
            if cosine <= COLLAPSED_COSINE and available >= 2 and rank < max(1.1, TINY_RANK * available):
                self.warn(
                    f"{name!r} uses {rank:.1f} of {available} directions (effective rank); "
                    f"its items are told apart along next to nothing",
                    code=f"rank/{name}",
                    step=step,
                )
        return numbers

    def _look_at_bounds(self, objective: Objective, step: int) -> None:
        for module in objective.modules():
            if isinstance(module, BoundedParameter) and (bound := module.at_bound()) is not None:
                self.warn(
                    f"the learnable {module.option} sits at its {bound}er bound of "
                    f"{module.bounds[0 if bound == 'low' else 1]:g}; fix it, or widen {module.option}_bounds",
                    code=f"{module.option}/{bound}",
                    step=step,
                )


def gradient_ratio(batch: Batch, terms: dict[str, LossTerm]) -> float | None:
    """Norm of the gradient of all terms that repel over that of the alignment, by embedding; None without both.

    Only the part along the sphere counts: normalisation removes the other.
    """
    repelling = ("uniformity/", "partition/", "centroid")
    repel = {name: term for name, term in terms.items() if name.startswith(repelling)}
    attract = {name: term for name, term in terms.items() if name == "alignment"}
    if not repel or not attract:
        return None
    above, below = (_tangent_norm(batch, group) for group in (repel, attract))
    if below == 0:
        return None
    return above / below


def _tangent_norm(batch: Batch, terms: dict[str, LossTerm]) -> float:
    z_MBD = batch.z_MBD
    (gradient_MBD,) = torch.autograd.grad(weighted_sum(batch, terms), z_MBD, retain_graph=True)
    radial_MB1 = (gradient_MBD * z_MBD.detach()).sum(-1, keepdim=True)
    tangent_MBD = gradient_MBD - radial_MB1 * z_MBD.detach()
    if batch.shard is None:
        return float(torch.linalg.vector_norm(tangent_MBD))
    # Complete for the rows of this process only.
    own_MnD = tangent_MBD[:, batch.shard.start : batch.shard.stop]
    return math.sqrt(float(batch.shard.sum(own_MnD.double().square().sum())))
