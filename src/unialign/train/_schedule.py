"""The learning rate as a pure function of the step."""

import math

__all__ = ["learning_rate"]


def learning_rate(step: int, *, steps: int, warmup: int, highest: float, lowest: float) -> float:
    """Linear from highest / warmup to `highest` over the first `warmup` steps, then half a cosine down to `lowest`.

    Args:
        step: from 0 to steps - 1.
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * progress))
