"""What the processes of a group say to each other besides rows: numbers, objects, and what went wrong on one of them.

Every function that takes a group is a collective of it, but for those about devices: all its processes call it, in the
same order.

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

__all__ = [
    "Packed",
    "accelerator_of",
    "check_device",
    "collective_device",
    "deserialize_error",
    "devices_of",
    "first_error",
    "gather_integers",
    "gather_objects",
    "gather_tensors",
    "serialize_error",
]

T = TypeVar("T")

# An error as it travels: the name of its type, its message, and with which code its process wants to end.
Packed = tuple[str, str, int | str | None]


def gather_integers(own: Sequence[int], group: Any, *, doing: str = MESSAGE) -> list[list[int]]:
    """The integers of every process by rank in the group, as many of each; one collective.

    Args:
        own: below 2^63.
        doing: what `naming_failures` says that this process did.

    Raises:
        DistributedError: another process ended or never came.
    """
    row_K = torch.tensor(own, dtype=torch.int64, device=collective_device(group))
    return [[int(number) for number in row] for row in gather_tensors(row_K, group, doing=doing).tolist()]


def gather_tensors(own_K: Tensor, group: Any, *, doing: str = MESSAGE) -> Tensor:
    """(P, K) of the (K,) of each process, of one dtype and on a device that the group takes; one collective.

    Raises:
        DistributedError: another process ended or never came.
    """
    own_K = own_K.detach().contiguous()
    parts = [torch.empty_like(own_K) for _ in range(dist.get_world_size(group))]
    with naming_failures(group, doing):
        dist.all_gather(parts, own_K, group=group)
    return torch.stack(parts)


def gather_objects(own: T, group: Any, *, doing: str = MESSAGE) -> list[T]:
    """What each process brings, by rank in the group; it must survive pickling.

    Raises:
        DistributedError: another process ended or never came.
    """
    values: list[Any] = [None] * dist.get_world_size(group)
    with naming_failures(group, doing):
        dist.all_gather_object(values, own, group=group)
    return values


def devices_of(group: Any) -> tuple[str, ...]:
    """Types of the devices whose tensors the group's backend takes."""
    return tuple(entry.split(":")[0] for entry in dist.get_backend_config(group).split(","))


def check_device(device: torch.device, group: Any, *, what: str) -> None:
    """`ConfigError` unless the group's backend takes tensors of this device.

    Args:
        what: what is there, with its verb: `embeddings lie`.
    """
    taken = devices_of(group)
    if device.type not in taken:
        raise ConfigError(
            f"{what} on {device.type!r}, but the process group takes tensors on {' and '.join(taken)}; start the group "
            f"with a backend for {device.type!r}, or use another device"
        )


def collective_device(group: Any) -> torch.device:
    """A device that every process of the group has, whatever it computes on: the CPU where the backend takes it."""
    return torch.device("cpu") if "cpu" in devices_of(group) else accelerator_of(group)


def accelerator_of(group: Any) -> torch.device:
    """This process's own device of the first type that the group takes besides the CPU; CUDA goes first."""
    kinds = devices_of(group)
    kind = next(kind for kind in ("cuda", *kinds) if kind in kinds and kind != "cpu")
    return torch.device(kind, torch.accelerator.current_device_index())


def serialize_error(error: BaseException) -> Packed:
    """An error in a form that reaches the other processes, whatever it holds."""
    code = error.code if isinstance(error, SystemExit) else None
    return type(error).__name__, str(error), code if isinstance(code, int | str | None) else str(code)


def deserialize_error(told: Packed, rank: int, count: int, *, did: str = "") -> BaseException:
    """The error of another process: as one of ours where it was, its wish to end as that wish, else `DistributedError`.

    Args:
        rank: that process.
        count: how many there are.
        did: what it did meanwhile, after its name: `refused its batch`.
    """
    kind, message, code = told
    if kind == "SystemExit":
        return SystemExit(code)
    if kind == "KeyboardInterrupt":
        return KeyboardInterrupt(message)
    who = " ".join(f"process {rank} of {count} {did}".split())
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, UniAlignError):
        return known(f"{who}: {message}")
    return DistributedError(f"{who}: {kind}: {message}")


def first_error(told: Sequence[Packed | None], *, did: str = "") -> BaseException | None:
    """The error of the first process that has one; None where none has.

    Args:
        told: what each process says, by rank.
        did: as `unpacked` takes it.
    """
    found = ((rank, error) for rank, error in enumerate(told) if error is not None)
    return next((deserialize_error(error, rank, len(told), did=did) for rank, error in found), None)
