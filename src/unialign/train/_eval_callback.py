"""Looks at a space while it is being trained, without leaving a trace in the run."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

from unialign._checks import check_integer
from unialign.errors import ConfigError
from unialign.space import Space

__all__ = ["EvalCallback", "check_probe", "check_probe_steps"]


@dataclass(frozen=True)
class EvalCallback:
    """What to measure during training, and when.

    The run is bit by bit the one without a probe: the space is in eval mode and without gradients for the look, random
    numbers are put back afterwards, and the time is not counted as training. A resumed run is looked at in the steps
    that are left, a finished one not at all.

    Attributes:
        steps: completed steps after which to look; 0 is the untrained space, `training_steps` the last one.
        look: called with the number of completed steps and the live space, which it must not change.
    """

    steps: Collection[int]
    look: Callable[[int, Space], None]

    def visit(self, step: int, space: Space, device: torch.device) -> None:
        """Call `look` if this step is one of those chosen."""
        if step not in self.steps:
            return
        modes = [(module, module.training) for module in space.modules()]
        space.eval()
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
                self.look(step, space)
        finally:
            for module, training in modes:
                module.training = training


def check_probe(probe: object) -> None:
    """`ConfigError` unless it is None or a usable `Probe`."""
    if probe is None:
        return
    if not isinstance(probe, EvalCallback) or not callable(probe.look):
        raise ConfigError(f"probe must be a Probe with a function that takes step and space, got {probe!r}")
    steps: Any = probe.steps
    if not isinstance(steps, Collection) or isinstance(steps, str | bytes):
        raise ConfigError(f"probe.steps must be a collection of numbers of completed steps, got {steps!r}")
    for step in steps:
        check_integer("each of probe.steps", step, low=0)


def check_probe_steps(probe: EvalCallback, steps: int) -> None:
    """`ConfigError` if the run ends before a chosen step, which would then never be looked at."""
    if late := sorted(step for step in probe.steps if step > steps):
        raise ConfigError(f"probe.steps names {late[-1]}, but training has {steps} steps (see `training_steps`)")
