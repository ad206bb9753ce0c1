"""Evaluate a space during training without affecting the run."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unialign._checks import check_integer
from unialign.errors import ConfigError
from unialign.space import evaluating


@dataclass(frozen=True)
class EvalCallback:
    """A function called after selected steps.

    The calls do not affect the run: the space is in eval mode without gradients during a call, the random state is
    restored afterwards, and the time is not counted as training time. A resumed run is evaluated only at its remaining
    steps.

    Attributes:
        steps: numbers of completed steps after which the function is called, from 0 (the untrained space) to
            `training_steps` (the end of the run).
        function: called with the number of completed steps and the space, which it must not modify.
    """

    steps: Collection[int]
    function: Callable[[int, Any], None]

    def call(self, step: int, model: nn.Module, device: torch.device) -> None:
        """Call the function if the step is selected."""
        if step not in self.steps:
            return
        devices = [device] if device.type == "cuda" else []
        with evaluating(model), torch.random.fork_rng(devices=devices), torch.no_grad():
            self.function(step, model)


def check_eval_callback(callback: object, total_steps: int) -> None:
    if callback is None:
        return
    if not isinstance(callback, EvalCallback) or not callable(callback.function):
        raise ConfigError(
            f"eval_callback must be an EvalCallback with a function that takes step and space, got {callback!r}"
        )
    steps: Any = callback.steps
    if not isinstance(steps, Collection) or isinstance(steps, str | bytes):
        raise ConfigError(f"eval_callback.steps must be a collection of numbers of completed steps, got {steps!r}")
    for step in steps:
        check_integer("each of eval_callback.steps", step, low=0)
        if step > total_steps:
            raise ConfigError(
                f"eval_callback.steps contains {step}, but training has {total_steps} steps (see `training_steps`)"
            )
