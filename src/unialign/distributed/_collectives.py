"""Exchange integers, objects and errors between the processes of a group.

The functions `gather_*` are collectives: all processes of the group must call them in the same order. They raise
`DistributedError` if another process ended or did not call them in time.

Shapes: `K` numbers of each process, `P` processes.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from unialign import errors
from unialign.distributed._failures import MESSAGE, naming_failures
from unialign.errors import ConfigError, DistributedError, UniAlignError

T = TypeVar("T")

# A serialized error: type name, message, and exit code of a SystemExit.
Packed = tuple[str, str, int | str | None]


def gather_integers(own: Sequence[int], group: Any, *, doing: str = MESSAGE) -> list[list[int]]:
    """Gather integers, which must be below 2^63, and their number must be the same on every process."""
    row_K = torch.tensor(own, dtype=torch.int64, device=collective_device(group))
    return [[int(number) for number in row] for row in gather_tensors(row_K, group, doing=doing).tolist()]


def gather_tensors(own_K: Tensor, group: Any, *, doing: str = MESSAGE) -> Tensor:
    own_K = own_K.detach().contiguous()
    parts = [torch.empty_like(own_K) for _ in range(dist.get_world_size(group))]
    with naming_failures(group, doing):
        dist.all_gather(parts, own_K, group=group)
    return torch.stack(parts)


def gather_objects(own: T, group: Any, *, doing: str = MESSAGE) -> list[T]:
    values: list[Any] = [None] * dist.get_world_size(group)
    with naming_failures(group, doing):
        dist.all_gather_object(values, own, group=group)
    return values


def devices_of(group: Any) -> tuple[str, ...]:
    return tuple(entry.split(":")[0] for entry in dist.get_backend_config(group).split(","))


def check_device(device: torch.device, group: Any, *, what: str) -> None:
    """Raise ConfigError unless the group supports the device; `what` is subject and verb of the message, such as
    `embeddings are`.
    """
    taken = devices_of(group)
    if device.type not in taken:
        raise ConfigError(
            f"{what} on {device.type!r}, but the process group supports {' and '.join(taken)}; initialize the group "
            f"with a backend for {device.type!r}, or use another device"
        )


def collective_device(group: Any) -> torch.device:
    """Return a device available on every process of the group, preferably the CPU."""
    return torch.device("cpu") if "cpu" in devices_of(group) else accelerator_of(group)


def accelerator_of(group: Any) -> torch.device:
    """Return a device type that the group supports, preferably CUDA."""
    kinds = devices_of(group)
    kind = next(kind for kind in ("cuda", *kinds) if kind in kinds and kind != "cpu")
    return torch.device(kind, torch.accelerator.current_device_index())


def serialize_error(error: BaseException) -> Packed:
    code = error.code if isinstance(error, SystemExit) else None
    return type(error).__name__, str(error), code if isinstance(code, int | str | None) else str(code)


def deserialize_error(packed: Packed, rank: int, count: int, *, did: str = "") -> BaseException:
    """Restore an error. Errors other than UniAlignError and SystemExit become DistributedError. `did` is the predicate
    of the message, such as `rejected its batch`.
    """
    kind, message, code = packed
    if kind == "SystemExit":
        return SystemExit(code)
    if kind == "KeyboardInterrupt":
        return KeyboardInterrupt(message)
    who = " ".join(f"process {rank} of {count} {did}".split())
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, UniAlignError):
        return known(f"{who}: {message}")
    return DistributedError(f"{who}: {kind}: {message}")


def first_error(packed: Sequence[Packed | None], *, did: str = "") -> BaseException | None:
    """Return the error of the lowest rank that has one."""
    found = ((rank, error) for rank, error in enumerate(packed) if error is not None)
    return next((deserialize_error(error, rank, len(packed), did=did) for rank, error in found), None)
