"""Headers that let processes check compatibility of their batches and calls before exchanging rows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unialign.batch import Batch
from unialign.errors import ConfigError, ShapeError
from unialign.losses._consistency import checksum, takes_triton

__all__ = ["Header", "check_headers", "make_header", "same_names"]

_TRITON_DEVICE = "cuda"


class Header(NamedTuple):
    """Integers that describe the batch and call of a process, sent as one small tensor."""

    invalid: int  # 1: the batch did not pass validation
    rows: int
    dim: int  # 0: no modality, so dim and device are unknown
    names: int  # checksum of the ordered modalities
    ids: int  # 1: ids are given
    absences: int  # 1: rows may be absent
    double: int  # 1: float64
    device: int  # checksum of the device type
    call: int  # checksum of `call_text`
    triton: int  # 1: reductions run by Triton for tensors on CUDA


def make_header(batch: Batch | None, *, invalid: bool, absences: bool, call: str) -> Header:
    """Return the header of a batch; `batch` is None for an invalid batch or without modalities."""
    if batch is None:
        return Header(int(invalid), 0, 0, checksum(), 0, 0, 0, 0, checksum(call), int(takes_triton()))
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
        triton=int(takes_triton()),
    )


def same_names(headers: Sequence[Header]) -> bool:
    """Return whether all processes have the same modalities in the same order."""
    return len({(header.names, header.dim > 0) for header in headers}) == 1


def check_headers(headers: Sequence[Header]) -> None:
    """Raise unless the batches of all processes are compatible; the error is the same on every process."""
    known = [(rank, header) for rank, header in enumerate(headers) if header.dim > 0]
    if not known:
        return
    first, reference = known[0]
    for rank, header in known[1:]:
        if header.dim != reference.dim:
            raise ShapeError(
                f"process {rank} of {len(headers)} has embeddings of dim {header.dim}, process {first} of dim "
                f"{reference.dim}; all must have the dim of the shared space"
            )
        if header.device != reference.device:
            raise ConfigError(
                f"the embeddings of processes {first} and {rank} are on devices of different types; use one type"
            )
    if reference.device == checksum(_TRITON_DEVICE):
        _check_triton(headers)
    _check_ids(headers)


def _check_triton(headers: Sequence[Header]) -> None:
    if len({header.triton for header in headers}) == 1:
        return
    having, lacking = (_listed(rank for rank, header in enumerate(headers) if header.triton == has) for has in (1, 0))
    raise ConfigError(
        f"the backend 'auto' is Triton on process {having} of {len(headers)}, but not on {lacking}, where it is not "
        f"installed; their collectives differ. Install 'unialign[triton]' on every process, or use one backend on all "
        f"with `unialign.ops.use_backend`"
    )


def _check_ids(headers: Sequence[Header]) -> None:
    with_rows = [(rank, header.ids) for rank, header in enumerate(headers) if header.rows > 0]
    without = _listed(rank for rank, has_ids in with_rows if not has_ids)
    given = _listed(rank for rank, has_ids in with_rows if has_ids)
    if without and given:
        raise ConfigError(
            f"ids were given on process {given} of {len(headers)}, but not on {without}: give `ids` on every process "
            f"that has rows, or on none (give items without duplicates a unique id)"
        )


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(str(rank) for rank in ranks)
