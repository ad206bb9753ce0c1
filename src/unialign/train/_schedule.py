"""Learning rate as a pure function of the step."""

import math
from typing import Literal


def learning_rate(
    step: int,
    *,
    steps: int,
    warmup: float,
    highest: float,
    lowest: float = 0.0,
    cosine_from: Literal["warmup", "start"] = "warmup",
) -> float:
    """Return the learning rate of a linear warmup over `warmup` steps and a half-cosine decay to `lowest`.

    Args:
        step: from 0 to steps - 1.
        cosine_from: `warmup`: the decay starts after the warmup; `start`: at step 0, multiplied by the warmup.
    """
    if cosine_from == "start":
        rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
        return lowest + (highest * rise - lowest) * 0.5 * (1 + math.cos(math.pi * step / steps))
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * progress))
