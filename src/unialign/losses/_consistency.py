"""Compare the loss calls of all processes: processes must use the same objective with the same settings."""

import json
import zlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unialign.ops import current_backend, has_triton

__all__ = ["call_text", "checksum", "different_calls", "takes_triton"]


def call_text(
    objective: str, settings: dict[str, Any], *, gradients: bool, parameters: Sequence[tuple[str, Tensor]], draw: int
) -> str:
    """Return the properties of a call that must be equal on every process, as JSON.

    Args:
        gradients: `torch.is_grad_enabled()`.
        parameters: named parameters of the objective.
        draw: number of the random draw, for objectives that sample negatives.
    """
    call = {
        "objective": objective,
        "settings": settings,
        "gradients": gradients,
        "learned": [name for name, parameter in parameters if parameter.requires_grad],
        "draw": draw,
        "backend": current_backend(),
    }
    # Use the type rather than the repr, whose address differs between processes.
    return json.dumps(call, sort_keys=True, default=lambda value: type(value).__name__)


def takes_triton() -> bool:
    """Return whether the backend `auto` selects Triton on CUDA; explicit backends are part of `call_text`."""
    return current_backend() == "auto" and has_triton()


def checksum(*described: str) -> int:
    """Return a checksum of a sequence of texts."""
    return zlib.crc32("\0".join(described).encode("utf-8", "surrogatepass"))


def different_calls(texts: Sequence[str]) -> str:
    """Return the error message for differing results of `call_text`, given by rank."""
    calls = [json.loads(text) for text in texts]
    by_call: dict[str, list[int]] = {}
    for rank, call in enumerate(calls):
        by_call.setdefault(_format_call(call, calls), []).append(rank)
    listed = "; ".join(f"{_processes(ranks, len(calls))} {described}" for described, ranks in by_call.items())
    return (
        f"processes call different losses, so their rows do not form one batch: {listed}. Call one objective with the "
        f"same settings on every process, with gradients on all or on none; a call of a single process needs "
        f"`group=None`"
    )


def _format_call(call: dict[str, Any], calls: list[dict[str, Any]]) -> str:
    """Describe a call by the properties in which the calls differ."""
    namesakes = [other for other in calls if other["objective"] == call["objective"]]
    options = [
        f"{key}={value!r}"
        for key, value in call["settings"].items()
        if any(other["settings"].get(key, other) != value for other in namesakes)
    ]
    described = f"{call['objective']}({', '.join(options)})" if options else str(call["objective"])
    if any(other["learned"] != call["learned"] for other in namesakes):
        described += f" learning {', '.join(call['learned']) or 'no parameter'}"
    if any(other["draw"] != call["draw"] for other in namesakes):
        described += f" at draw {call['draw']}"
    if any(other["backend"] != call["backend"] for other in calls):
        described += f" with the backend {call['backend']!r}"
    if any(other["gradients"] != call["gradients"] for other in calls):
        described += " with gradients" if call["gradients"] else " without gradients (torch.no_grad)"
    return described


def _processes(ranks: list[int], count: int) -> str:
    if len(ranks) == 1:
        return f"process {ranks[0]} of {count} calls"
    return f"processes {', '.join(map(str, ranks))} of {count} call"
