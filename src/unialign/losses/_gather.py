"""The batch of all processes: each brings its own rows, all get the same batch and compute the same loss.

A call makes two collectives: one of a short header of integers, one of the unit rows, padded to the most rows of a
process. A third one brings the ids where a process gave some. Others are made where the headers, which all processes
see alike, say so: one of objects where a process refused its batch (the errors) or two call something different (the
calls), both followed by an error on every process; one of objects where the modalities differ (their names). What the
loss and its kernels exchange, forward or backward, comes after that.

Shapes: `n` rows of this process, `B` rows of all, `M` modalities, `D` width, `P` processes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from unialign.batch import Batch, make_batch
from unialign.distributed import (
    BATCH,
    Shard,
    accelerator_of,
    check_device,
    first_error,
    gather_integers,
    gather_objects,
    gather_with_own_gradient,
    serialize_error,
)
from unialign.errors import ConfigError, DistributedError, ShapeError
from unialign.losses._consistency import checksum, different_calls, takes_triton

__all__ = ["batch_everywhere"]

_TRITON_DEVICE = "cuda"


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
    triton: int = 0  # 1 where the kernels of this call take Triton for tensors on CUDA


@dataclass(frozen=True)
class _Own:
    """The batch of this process alone, or why it was refused."""

    batch: Batch | None
    error: BaseException | None
    header: _Header


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
    own = _own_batch(embeddings, present, ids, group, checksum(call))
    header = own.header._replace(triton=int(takes_triton()))
    headers = [_Header(*numbers) for numbers in gather_integers(header, group, doing=BATCH)]
    if any(header.refused for header in headers):
        _raise_everywhere(own, group)
    if len({header.call for header in headers}) > 1:
        raise ConfigError(different_calls(gather_objects(call, group, doing=BATCH)))
    _check_fit(headers)
    names = _all_names(own, headers, group)
    if len(names) < 2:
        raise ShapeError(f"expected at least 2 modalities on all processes together, got {len(names)}: {list(names)}")
    shard = Shard(tuple(header.rows for header in headers), rank, group)
    z_MnD = _own_rows(own, names, headers, group)
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


def _own_batch(
    embeddings: Mapping[str, Tensor],
    present: Mapping[str, Tensor] | None,
    ids: Tensor | None,
    group: Any,
    call: int,
) -> _Own:
    if isinstance(embeddings, Mapping) and not embeddings and not present:
        return _Own(None, None, _Header(0, 0, 0, checksum(), 0, 0, 0, 0, call))
    try:
        batch = make_batch(embeddings, present=present, ids=ids, minimum=1)
        check_device(batch.z_MBD.device, group, what="embeddings lie")
    except BaseException as error:
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
        checksum(batch.z_MBD.device.type),
        call,
    )
    return _Own(batch, None, header)


def _raise_everywhere(own: _Own, group: Any) -> NoReturn:
    told = gather_objects(None if own.error is None else serialize_error(own.error), group, doing=BATCH)
    raise own.error or first_error(told, did="refused its batch") or DistributedError("a process refused its batch")


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
    # On other devices it does not matter who has it.
    if reference.device == checksum(_TRITON_DEVICE) and len({header.triton for header in headers}) > 1:
        having, lacking = (
            _listed(rank for rank, header in enumerate(headers) if header.triton == has) for has in (1, 0)
        )
        raise ConfigError(
            f"kernels 'auto' run by Triton on process {having} of {len(headers)}, but not on {lacking}, where it is "
            f"not installed; what they exchange differs. Install 'unialign[triton]' everywhere, or pin one backend on "
            f"every process with `unialign.ops.use_backend`"
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
    lists = gather_objects(own_names, group, doing=BATCH)
    ordered = sorted(lists, key=len, reverse=True)
    return tuple(dict.fromkeys(name for names in ordered for name in names))


def _own_rows(own: _Own, names: tuple[str, ...], headers: list[_Header], group: Any) -> Tensor:
    """This process's rows of all modalities in the common order and dtype; zeros where it lacks one."""
    width = max(header.width for header in headers)
    dtype = torch.float64 if any(header.double for header in headers) else torch.float32
    if own.batch is None:
        cpu = checksum("cpu") in {header.device for header in headers if header.width > 0}
        device = torch.device("cpu") if cpu else accelerator_of(group)
        # A leaf, so that `backward` runs on this process as on the others.
        return torch.zeros(len(names), 0, width, dtype=dtype, device=device, requires_grad=True)
    z_MnD = own.batch.z_MBD.to(dtype)
    if names == own.batch.names:
        return z_MnD
    nothing_nD = z_MnD.new_zeros(z_MnD.shape[1:])
    places = {name: m for m, name in enumerate(own.batch.names)}
    return torch.stack([z_MnD[places[name]] if name in places else nothing_nD for name in names])
