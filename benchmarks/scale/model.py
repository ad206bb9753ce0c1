"""Costs of a forward and a backward pass of a loss on every process."""

from dataclasses import replace
from operator import mul
from typing import NamedTuple

from benchmarks.scale.objectives import Moment, Objective
from benchmarks.scale.parts import FLOAT, Setting

__all__ = ["Costs", "costs"]

# `Header` of `losses/_consistency.py`: ten integers.
HEADER = 80
# Up to this number of entries, the rows of all modalities are normalized together, and the result is kept.
STACKED = 2**22


class Costs(NamedTuple):
    """Costs of one process.

    Attributes:
        forward, backward: flops of matrix products.
        sent: bytes passed to each collective of the forward pass; the backward pass has none.
        kept: bytes of all tensors between the passes, with inputs.
        peak: largest number of bytes at a time, with inputs and their gradients; None on one process.
    """

    forward: float
    backward: float
    sent: tuple[float, ...]
    kept: float
    peak: float | None

    @property
    def flops(self) -> float:
        return self.forward + self.backward


def costs(objective: Objective, s: Setting) -> Costs:
    whole, own = FLOAT * s.items * s.dim, FLOAT * s.own * s.dim
    everything, inputs = s.modalities * whole, s.modalities * own
    if not objective.weights:
        s = replace(s, width=0)
    parts = objective.parts(s)
    kept = everything + inputs + objective.rows(s) * whole + objective.small(s) * s.items
    kept += sum(part.small for part in parts)
    kept += FLOAT * s.modalities * s.own * (1 if s.modalities * s.own * s.dim <= STACKED else 2)
    sent, peak = tuple(size for part in parts for size in part.sent), None
    if s.processes > 1:
        kept += inputs  # unit rows of this process
        sent = (HEADER, inputs, *sent)
        moments = [*objective.peak(s), _gather_moment(s)]
        sizes = (everything, whole, inputs, own, 1)
        peak = max(sum(map(mul, moment, sizes)) for moment in moments)
        peak += kept - everything - 2 * inputs - objective.rows(s) * whole
    return Costs(2 * sum(p.forward for p in parts), 2 * sum(p.backward for p in parts), sent, kept, peak)


def _gather_moment(s: Setting) -> Moment:
    """Parts of all processes and their concatenation; NCCL also has a flat buffer for a list of parts."""
    return (3 if s.device == "gpu" else 2), 0, 3, 0, 0
