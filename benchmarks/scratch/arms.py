"""Losses of a first training loop, and remedies against the collapse.

Shapes: `B` items.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign.losses import InfoNCE, Objective, UniAlign

# Outputs, masks, ids and the fraction of the steps that are completed -> loss.
Loss = Callable[[dict[str, Tensor], dict[str, Tensor], Tensor, float], Tensor]


@dataclass(frozen=True)
class Arm:
    label: str
    loss: Loss
    standardize: bool = False


def _fixed(objective: Objective) -> Loss:
    return lambda z, present, ids_B, _: objective(z, present=present, ids=ids_B).total


def _changing(objective_at: Callable[[float], Objective]) -> Loss:
    return lambda z, present, ids_B, done: objective_at(done)(z, present=present, ids=ids_B).total


def unialign(**options: Any) -> UniAlign:
    """UniAlign whose repulsion is only within modalities."""
    return UniAlign(**{"partition_mix": 1.0, **options})


def _ramp(part: float) -> Loss:
    return _changing(lambda done: unialign(alignment_weight=min(1.0, done / part)))


def _warmup(part: float) -> Loss:
    return _changing(lambda done: InfoNCE() if done < part else unialign())


def mean_cosines(objective: Objective, z: dict[str, Tensor], present: dict[str, Tensor], ids_B: Tensor) -> Tensor:
    """Return the mean cosine between different items of each modality."""
    batch, _ = objective.compute(z, present=present, ids=ids_B)
    count_M = batch.present_MB.sum(1)
    return (batch.z_MBD.sum(1).square().sum(-1) - count_M) / (count_M * (count_M - 1))


def _gate(z: dict[str, Tensor], present: dict[str, Tensor], ids_B: Tensor, _: float) -> Tensor:
    """The weight of the alignment is 2 (1 - c), at most 1, with c the largest mean cosine of a modality."""
    with torch.no_grad():
        cosine = float(mean_cosines(unialign(), z, present, ids_B).max())
    weight = min(1.0, 2 * (1 - cosine))
    return unialign(alignment_weight=weight)(z, present=present, ids=ids_B).total


def _barrier(floor: float) -> Loss:
    """Add floor (s / floor - 1 - log(s / floor)) / tau for spreads s = 1 - c below the floor."""

    def loss(z: dict[str, Tensor], present: dict[str, Tensor], ids_B: Tensor, _: float) -> Tensor:
        objective = unialign()
        ratio_M = (1 - mean_cosines(objective, z, present, ids_B)).clamp_min(1e-4) / floor
        penalty = (floor * (ratio_M - 1 - ratio_M.log())).where(ratio_M < 1, 0).mean()
        return objective(z, present=present, ids=ids_B).total + penalty / 0.07

    return loss


UNIALIGN, AUTO, INFONCE = "unialign", "auto", "infonce"
ARMS: dict[str, Arm] = {
    UNIALIGN: Arm("UniAlign, balanced", _fixed(unialign())),
    AUTO: Arm("UniAlign, adaptive (default)", _fixed(UniAlign())),
    INFONCE: Arm("InfoNCE", _fixed(InfoNCE())),
    "mix-0.5": Arm("partition_mix 0.5", _fixed(UniAlign(partition_mix=0.5))),
    "mix-0.25": Arm("partition_mix 0.25", _fixed(UniAlign(partition_mix=0.25))),
    "uniformity-2": Arm("uniformity weight 2", _fixed(unialign(uniformity_weight=2.0))),
    "ramp-0.2": Arm("alignment weight 0 to 1 in 20 % of the steps", _ramp(0.2)),
    "ramp-0.5": Arm("alignment weight 0 to 1 in 50 % of the steps", _ramp(0.5)),
    "warmup-0.2": Arm("InfoNCE in the first 20 % of the steps", _warmup(0.2)),
    "warmup-0.5": Arm("InfoNCE in the first 50 % of the steps", _warmup(0.5)),
    "gate": Arm("alignment weight by the mean cosine", _gate),
    "barrier-0.3": Arm("barrier at a spread of 0.3", _barrier(0.3)),
    "barrier-0.5": Arm("barrier at a spread of 0.5", _barrier(0.5)),
    "standardize": Arm("outputs standardized once before training", _fixed(unialign()), standardize=True),
}
