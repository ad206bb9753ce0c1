"""The batch of all processes: each brings its own rows, all get the same batch and compute the same loss.

A call makes two collectives: one of a short header, one of the unit rows; a third one brings the ids where there are
any. Two more make an error known to all, or tell which modalities there are where the processes differ in them.

Shapes: `n` rows of this process, `B` rows of all, `M` modalities, `D` width, `P` processes.
"""

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from unialign import errors
from unialign.distributed._alone import is_alone
from unialign.distributed._failures import BATCH, naming_failures
from unialign.distributed._shard import Shard, gather_with_own_gradient
from unialign.embeddings import Batch, make_batch
from unialign.errors import ConfigError, ProcessError, ShapeError, UniAlignError
from unialign.losses._call import checksum, different_calls

__all__ = ["batch_everywhere", "processes_of"]

_NOT_A_MEMBER = "this process does not belong to the group; make the call on the group's own processes only"


class _Header(NamedTuple):
    """What a process tells the others before it sends rows: integers, so that one small tensor holds it."""

    refused: int
    rows: int
    width: int  # 0: unknown, no modality at all
    names: int  # a checksum of the modalities in their order
    ids: int
    absences: int  # 1 where rows may be absent
    double: int
    device: int  # a checksum of the device's type
    call: int  # a checksum of `call_text`


@dataclass(frozen=True)
class _Own:
    """The batch of this process alone, or why it was refused."""

    batch: Batch | None
    error: Exception | None
    header: _Header


def processes_of(group: Any) -> Any:
    """The group whose processes share a batch; None for this process alone.

    Args:
        group: `"auto"` (all processes if there are several), None (this one alone) or a process group.
    """
    if group is None or (isinstance(group, str) and group == "auto" and is_alone()):
        return None
    if isinstance(group, str) and group == "auto" and not _initialised():
        _warn_of_a_job_not_joined()
        return None
    if isinstance(group, str):
        if group != "auto":
            raise ConfigError(f"group must be 'auto', None or a torch.distributed process group, got {group!r}")
        group = dist.group.WORLD
    if _initialised() and group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ConfigError(_NOT_A_MEMBER)
    if not _initialised() or not isinstance(group, dist.ProcessGroup):
        raise ConfigError(f"group must be 'auto', None or a torch.distributed process group, got {group!r}")
    rank = dist.get_rank(group)
    if rank < 0:
        raise ConfigError(_NOT_A_MEMBER)
    return None if dist.get_world_size(group) == 1 else group


def batch_everywhere(
    embeddings: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor] | None,
    ids: Tensor | None,
    group: Any,
    call: str,
) -> Batch:
    """The batch of all processes of a group, their rows one after the other.

    Modalities are those of all processes: in the order of the first process that has the most, then as they come. Rows
    of a process that lacks one are absent from it. A process may have no rows, or no modality at all.

    Args:
        call: what is called with the batch, as `call_text` says it.

    Raises:
        UniAlignError: on every process, if one of them refuses its batch or two do not fit together.
        ConfigError: on every process, if two of them call something different.
    """
    rank = dist.get_rank(group)
    devices = _devices(group)
    own = _own_batch(embeddings, present, ids, devices, checksum(call))
    headers = _exchange_headers(own.header, group, devices)
    if any(header.refused for header in headers):
        _raise_everywhere(own, group)
    if len({header.call for header in headers}) > 1:
        raise ConfigError(different_calls(_exchange_objects(call, group)))
    _check_fit(headers)
    names = _all_names(own, headers, group)
    if len(names) < 2:
        raise ShapeError(f"expected at least 2 modalities on all processes together, got {len(names)}: {list(names)}")
    shard = Shard(tuple(header.rows for header in headers), rank, group)
    z_MnD = _own_rows(own, names, headers, devices)
    z_MBD = gather_with_own_gradient(z_MnD, shard)
    # A present row has length 1, an absent one is 0: no need to send which is which.
    complete = not any(header.absences for header in headers) and _same_names(headers)
    present_MB = torch.ones_like(z_MBD[..., 0], dtype=torch.bool) if complete else (z_MBD.detach() != 0).any(-1)
    ids_B = None
    if any(header.ids for header in headers):
        own_ids = None if own.batch is None else own.batch.ids_B
        ids_B = shard.gather_rows(
            torch.zeros(shard.sizes[rank], dtype=torch.int64, device=z_MBD.device) if own_ids is None else own_ids
        )
    return Batch(names, z_MBD, present_MB, ids_B, shard)


def _warn_of_a_job_not_joined() -> None:
    # Tasks of SLURM may well be independent; torchrun's are not.
    if "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        warnings.warn(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but torch.distributed does not run: this loss "
            f"sees the rows of its own process only. Put the training into `with unialign.distributed.start():`, or "
            f"pass group=None if that is meant",
            stacklevel=2,  # one place: said once
        )


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def _devices(group: Any) -> tuple[str, ...]:
    """Types of the devices whose tensors the group's backend takes."""
    return tuple(entry.split(":")[0] for entry in dist.get_backend_config(group).split(","))


def _own_batch(
    embeddings: Mapping[str, Tensor],
    present: Mapping[str, Tensor] | None,
    ids: Tensor | None,
    devices: tuple[str, ...],
    call: int,
) -> _Own:
    if isinstance(embeddings, Mapping) and not embeddings and not present:
        return _Own(None, None, _Header(0, 0, 0, checksum(), 0, 0, 0, 0, call))
    try:
        batch = make_batch(embeddings, present=present, ids=ids, minimum=1)
        device = batch.z_MBD.device.type
        if device not in devices:
            raise ConfigError(
                f"embeddings lie on {device!r}, but the process group takes tensors on {' and '.join(devices)}: move "
                f"them, or start the group with a backend for {device!r}"
            )
    except Exception as error:
        # Whatever went wrong here, the others wait: they are told first.
        return _Own(None, error, _Header(1, 0, 0, 0, 0, 0, 0, 0, call))
    _, rows, width = batch.z_MBD.shape
    header = _Header(
        0,
        rows,
        width,
        checksum(*batch.names),
        int(batch.ids_B is not None),
        int(bool(present)),
        int(batch.z_MBD.dtype == torch.float64),
        checksum(device),
        call,
    )
    return _Own(batch, None, header)


def _exchange_headers(header: _Header, group: Any, devices: tuple[str, ...]) -> list[_Header]:
    device = _meeting_device(devices)
    sent = torch.tensor(header, dtype=torch.int64, device=device)
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size(group))]
    with naming_failures(group, BATCH):
        dist.all_gather(parts, sent, group=group)
    return [_Header(*numbers) for numbers in torch.stack(parts).tolist()]


def _meeting_device(devices: tuple[str, ...]) -> torch.device:
    """A device that every process has, whatever its embeddings."""
    return (
        torch.device("cpu") if "cpu" in devices else torch.device(devices[0], torch.accelerator.current_device_index())
    )


def _raise_everywhere(own: _Own, group: Any) -> None:
    told = _exchange_objects(None if own.error is None else (type(own.error).__name__, str(own.error)), group)
    if own.error is not None:
        raise own.error
    rank, (kind, message) = next((rank, told_by) for rank, told_by in enumerate(told) if told_by is not None)
    known = getattr(errors, kind, None)
    is_ours = isinstance(known, type) and issubclass(known, UniAlignError)
    text = f"process {rank} of {len(told)} refused its batch: {message if is_ours else f'{kind}: {message}'}"
    raise (known if is_ours and known is not None else ProcessError)(text)


def _exchange_objects(value: Any, group: Any) -> list[Any]:
    values: list[Any] = [None] * dist.get_world_size(group)
    with naming_failures(group, BATCH):
        dist.all_gather_object(values, value, group=group)
    return values


def _check_fit(headers: list[_Header]) -> None:
    """Refuse what cannot be one batch; every process sees the same headers and raises the same error."""
    known = [(rank, header) for rank, header in enumerate(headers) if header.width > 0]
    if not known:
        return
    first, reference = known[0]
    for rank, header in known[1:]:
        if header.width != reference.width:
            raise ShapeError(
                f"process {rank} of {len(headers)} has embeddings of width {header.width}, process {first} of width "
                f"{reference.width}; all share one space"
            )
        if header.device != reference.device:
            raise ConfigError(
                f"the embeddings of processes {first} and {rank} lie on devices of different types; use one type"
            )
    rows = [(rank, header.ids) for rank, header in enumerate(headers) if header.rows > 0]
    without = _listed(rank for rank, has_ids in rows if not has_ids)
    given = _listed(rank for rank, has_ids in rows if has_ids)
    if without and given:
        raise ConfigError(
            f"ids were given on process {given} of {len(headers)}, but not on {without}: give `ids` on every process "
            f"that has rows, or on none (an item without its like has an id of its own)"
        )


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(str(rank) for rank in ranks)


def _same_names(headers: list[_Header]) -> bool:
    return len({(header.names, header.width > 0) for header in headers}) == 1


def _all_names(own: _Own, headers: list[_Header], group: Any) -> tuple[str, ...]:
    own_names = () if own.batch is None else own.batch.names
    if _same_names(headers):
        return own_names
    lists = _exchange_objects(own_names, group)
    ordered = sorted(lists, key=len, reverse=True)
    return tuple(dict.fromkeys(name for names in ordered for name in names))


def _own_rows(own: _Own, names: tuple[str, ...], headers: list[_Header], devices: tuple[str, ...]) -> Tensor:
    """This process's rows of all modalities in the common order and dtype; zeros where it lacks one."""
    width = max(header.width for header in headers)
    dtype = torch.float64 if any(header.double for header in headers) else torch.float32
    if own.batch is None:
        cpu = checksum("cpu") in {header.device for header in headers if header.width > 0}
        device = torch.device("cpu") if cpu else _accelerator(devices)
        # A leaf, so that `backward` runs on this process as on the others.
        return torch.zeros(len(names), 0, width, dtype=dtype, device=device, requires_grad=True)
    z_MnD = own.batch.z_MBD.to(dtype)
    if names == own.batch.names:
        return z_MnD
    nothing_nD = z_MnD.new_zeros(z_MnD.shape[1:])
    places = {name: m for m, name in enumerate(own.batch.names)}
    return torch.stack([z_MnD[places[name]] if name in places else nothing_nD for name in names])


def _accelerator(devices: tuple[str, ...]) -> torch.device:
    kind = next(kind for kind in ("cuda", *devices) if kind in devices and kind != "cpu")
    return torch.device(kind, torch.accelerator.current_device_index())
