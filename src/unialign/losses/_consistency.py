"""Check that all processes call the same objective with compatible batches before rows are exchanged."""

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from unialign.batch import Batch
from unialign.errors import ConfigError, ShapeError
from unialign.ops import current_backend, has_triton

_TRITON_DEVICE = "cuda"


class Header(NamedTuple):
    invalid: int  # 1: the batch failed validation
    rows: int
    dim: int  # 0: no modality, so dim and device are unknown
    names: int  # checksum of the ordered modalities
    ids: int  # 1: ids are given
    absences: int  # 1: rows may be absent
    double: int  # 1: float64
    device: int  # checksum of the device type
    call: int  # checksum of `call_text`
    triton: int  # 1: the backend `auto` selects Triton on CUDA; explicit backends are part of `call_text`


def make_header(batch: Batch | None, *, invalid: bool, absences: bool, call: str) -> Header:
    triton = int(current_backend() == "auto" and has_triton())
    if batch is None:
        return Header(int(invalid), 0, 0, checksum(), 0, 0, 0, 0, checksum(call), triton)
    _, rows, dim = batch.z_MBD.shape
    return Header(
        invalid=0,
        rows=rows,
        dim=dim,
        names=checksum(*batch.names),
        ids=int(batch.ids_B is not None),
        absences=int(absences),
        double=int(batch.z_MBD.element_size() == 8),
        device=checksum(batch.z_MBD.device.type),
        call=checksum(call),
        triton=triton,
    )


def checksum(*texts: str) -> int:
    return zlib.crc32("\0".join(texts).encode("utf-8", "surrogatepass"))


def same_names(headers: Sequence[Header]) -> bool:
    return len({(header.names, header.dim > 0) for header in headers}) == 1


def check_headers(headers: Sequence[Header]) -> None:
    """The error is the same on every process."""
    known = [(rank, header) for rank, header in enumerate(headers) if header.dim > 0]
    if not known:
        return
    first, reference = known[0]
    for rank, header in known[1:]:
        if header.dim != reference.dim:
            raise ShapeError(
                f"process {rank} of {len(headers)} has embeddings of dim {header.dim}, but process {first} has "
                f"dim {reference.dim}; all processes must use the dim of the shared space"
            )
        if header.device != reference.device:
            raise ConfigError(
                f"the embeddings of processes {first} and {rank} are on devices of different types; use one device type"
            )
    if reference.device == checksum(_TRITON_DEVICE) and len({header.triton for header in headers}) > 1:
        having, lacking = (_ranks(rank for rank, h in enumerate(headers) if h.triton == has) for has in (1, 0))
        raise ConfigError(
            f"the backend 'auto' is Triton on process {having} of {len(headers)}, but not on {lacking}, where "
            f"Triton is not installed, so their collectives differ. Install 'unialign[triton]' on every process, or "
            f"use the same backend on all processes with `unialign.ops.use_backend`"
        )
    given, without = (_ranks(r for r, h in enumerate(headers) if h.rows > 0 and h.ids == has) for has in (1, 0))
    if without and given:
        raise ConfigError(
            f"ids were given on process {given} of {len(headers)}, but not on {without}; give `ids` on every process "
            f"that has rows, or on none (give each item without duplicates a unique id)"
        )


def _ranks(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, ranks))


def call_text(
    objective: str,
    settings: dict[str, Any],
    *,
    gradients: bool,
    parameters: Sequence[tuple[str, Tensor]],
    draw: int,
    inputs: str = "",
) -> str:
    """Return the properties of a call that must be equal on every process, as JSON."""
    learned = ", ".join(name for name, parameter in parameters if parameter.requires_grad)
    state = [
        f"learning {learned or 'no parameter'}",
        f"at draw {draw}",
        f"with the backend {current_backend()!r}",
        "with gradients" if gradients else "without gradients (torch.no_grad)",
        inputs or "with no further arguments",
    ]
    call = {"objective": objective, "settings": settings, "state": state}
    # Use the type rather than the repr, which contains a memory address that differs between processes.
    return json.dumps(call, sort_keys=True, default=lambda value: type(value).__name__)


def different_calls(texts: Sequence[str]) -> str:
    calls = [json.loads(text) for text in texts]
    by_call: dict[str, list[int]] = {}
    for rank, call in enumerate(calls):
        by_call.setdefault(_format_call(call, calls), []).append(rank)
    listed = []
    for described, ranks in by_call.items():
        subject, verb = ("process", "calls") if len(ranks) == 1 else ("processes", "call")
        listed.append(f"{subject} {_ranks(ranks)} of {len(calls)} {verb} {described}")
    return (
        f"processes call different losses, so their rows do not form one batch: {'; '.join(listed)}. Call one "
        "objective with the same settings on every process, with gradients on all or on none; a call on a single "
        "process needs `group=None`"
    )


def _format_call(call: dict[str, Any], calls: list[dict[str, Any]]) -> str:
    same = [other for other in calls if other["objective"] == call["objective"]]
    options = ", ".join(
        f"{key}={value!r}"
        for key, value in call["settings"].items()
        if any(other["settings"].get(key, other) != value for other in same)
    )
    state = [text for i, text in enumerate(call["state"]) if any(other["state"][i] != text for other in same)]
    return " ".join([f"{call['objective']}({options})" if options else call["objective"], *state])
