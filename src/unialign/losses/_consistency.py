"""What a process calls, told to the others: where two calls differ, the loss of their rows is one nobody asked for."""

import json
import zlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unialign.ops import _backend

__all__ = ["call_text", "checksum", "different_calls", "takes_triton"]


def call_text(
    objective: str, settings: dict[str, Any], *, gradients: bool, learnt: Sequence[tuple[str, Tensor]], draw: int
) -> str:
    """All that must be equal on every process, as JSON.

    Args:
        gradients: whether they are enabled (`torch.is_grad_enabled`).
        learnt: named parameters of the objective.
        draw: number of the random draw, for objectives that draw negatives.
    """
    call = {
        "objective": objective,
        "settings": settings,
        "gradients": gradients,
        "learnt": [name for name, parameter in learnt if parameter.requires_grad],
        "draw": draw,
        "kernels": _backend.chosen(),
    }
    # No address of an object: it would differ between processes.
    return json.dumps(call, sort_keys=True, default=lambda value: type(value).__name__)


def takes_triton() -> bool:
    """Whether kernels may run by Triton here, on devices that it knows; what is pinned is part of `call_text`."""
    return _backend.chosen() == "auto" and _backend._has_triton()


def checksum(*words: str) -> int:
    """A number for the words in their order."""
    return zlib.crc32("\0".join(words).encode("utf-8", "surrogatepass"))


def different_calls(texts: Sequence[str]) -> str:
    """The message for calls of which at least two differ, by process."""
    calls = [json.loads(text) for text in texts]
    by_words: dict[str, list[int]] = {}
    for rank, call in enumerate(calls):
        by_words.setdefault(_words(call, calls), []).append(rank)
    told = "; ".join(f"{_processes(ranks, len(calls))} {words}" for words, ranks in by_words.items())
    return (
        f"processes call different losses, whose rows make no common batch: {told}. Call the same objective with the "
        f"same settings on every process, with gradients on all or on none; what one process does alone needs "
        f"`group=None`"
    )


def _words(call: dict[str, Any], calls: list[dict[str, Any]]) -> str:
    """An objective with what tells its call from others of its name."""
    alike = [other for other in calls if other["objective"] == call["objective"]]
    options = [
        f"{key}={value!r}"
        for key, value in call["settings"].items()
        if any(other["settings"].get(key, other) != value for other in alike)
    ]
    words = f"{call['objective']}({', '.join(options)})" if options else str(call["objective"])
    if any(other["learnt"] != call["learnt"] for other in alike):
        words += f" learning {', '.join(call['learnt']) or 'no number of its own'}"
    if any(other["draw"] != call["draw"] for other in alike):
        words += f" at its draw {call['draw']}"
    if any(other["kernels"] != call["kernels"] for other in calls):
        words += f" by {call['kernels']!r} kernels"
    if any(other["gradients"] != call["gradients"] for other in calls):
        words += " with gradients" if call["gradients"] else " without gradients (torch.no_grad)"
    return words


def _processes(ranks: list[int], count: int) -> str:
    if len(ranks) == 1:
        return f"process {ranks[0]} of {count} calls"
    return f"processes {', '.join(map(str, ranks))} of {count} call"
