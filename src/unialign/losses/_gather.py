"""Gather the rows of all processes into one batch.

A call runs two collectives: one for the headers, and one for the unit rows, padded to the maximum number of rows per
process. A third collective gathers the ids, if given. If a batch is invalid, or calls or modalities differ, another
collective exchanges errors, calls or names.

Shapes: `n` rows of this process, `B` rows of all processes, `M` modalities, `D` dimension.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unialign.batch import Batch, ZeroRows, make_batch
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
from unialign.losses._call_inputs import CallInputs, with_inputs
from unialign.losses._consistency import Header, check_headers, checksum, different_calls, make_header, same_names
from unialign.losses._negatives import check_names, gather_negatives
from unialign.losses._similarity import check_similarity_names, gather_similarity

# Function that validates the other arguments of the call, given the local batch.
Prepare = Callable[[Batch | None], CallInputs]


def gather_batch(
    embeddings: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor] | None,
    ids: Tensor | None,
    group: Any,
    call: str,
    zero_rows: ZeroRows = "error",
    prepare: Prepare | None = None,
    minimum: int = 2,
) -> Batch:
    """The modalities are the union over processes, in the order of the process with the most modalities. If a process
    lacks a modality, its rows of this modality are absent. Errors are the same on every process.
    """
    batch, inputs, error = _validate(embeddings, present, ids, group, zero_rows, prepare)
    absences = bool(present) or zero_rows == "ignore"
    own = make_header(batch, invalid=error is not None, absences=absences, call=call)
    headers = _gather_headers(own, error, call, group)
    names = _common_names(batch, headers, group, minimum)
    shard = Shard(tuple(header.rows for header in headers), dist.get_rank(group), group)
    z_MBD = gather_with_own_gradient(_local_rows(batch, names, headers, group), shard)
    ids_B = _gather_ids(batch, headers, shard, z_MBD.device)
    whole = Batch(names, z_MBD, _presence(z_MBD, headers), ids_B, shard)
    if inputs is None:
        return whole
    check_names(inputs.negatives, names)
    check_similarity_names(inputs.similarity, names)
    negatives = gather_negatives(inputs.negatives, z_MBD, shard)
    similarity = gather_similarity(inputs.similarity, shard, z_MBD.detach())
    return with_inputs(whole, replace(inputs, negatives=negatives, similarity=similarity))


def _validate(
    embeddings: Mapping[str, Tensor],
    present: Mapping[str, Tensor] | None,
    ids: Tensor | None,
    group: Any,
    zero_rows: ZeroRows,
    prepare: Prepare | None,
) -> tuple[Batch | None, CallInputs | None, BaseException | None]:
    batch = None
    try:
        if not isinstance(embeddings, Mapping) or embeddings or present:
            batch = make_batch(embeddings, present=present, ids=ids, minimum=1, zero_rows=zero_rows)
            check_device(batch.z_MBD.device, group, what="embeddings are")
        inputs = None if prepare is None else prepare(batch)
    except BaseException as error:
        # Keep any error until the headers are exchanged, since the other processes wait for the header.
        return None, None, error
    return batch, inputs, None


def _gather_headers(own: Header, error: BaseException | None, call: str, group: Any) -> list[Header]:
    headers = [Header(*numbers) for numbers in gather_integers(own, group, doing=BATCH)]
    if any(header.invalid for header in headers):
        serialized = None if error is None else serialize_error(error)
        errors = gather_objects(serialized, group, doing=BATCH)
        raise error or first_error(errors, did="rejected its batch") or DistributedError("a batch is invalid")
    if len({header.call for header in headers}) > 1:
        raise ConfigError(different_calls(gather_objects(call, group, doing=BATCH)))
    check_headers(headers)
    return headers


def _common_names(batch: Batch | None, headers: list[Header], group: Any, minimum: int) -> tuple[str, ...]:
    names = () if batch is None else batch.names
    if not same_names(headers):
        lists = sorted(gather_objects(names, group, doing=BATCH), key=len, reverse=True)
        names = tuple(dict.fromkeys(name for own_names in lists for name in own_names))
    if len(names) < minimum:
        raise ShapeError(
            f"expected at least {minimum} modalities across all processes, got {len(names)}: {list(names)}"
        )
    return names


def _local_rows(batch: Batch | None, names: tuple[str, ...], headers: list[Header], group: Any) -> Tensor:
    """Zeros for missing modalities."""
    dtype = torch.float64 if any(header.double for header in headers) else torch.float32
    if batch is None:
        on_cpu = checksum("cpu") in {header.device for header in headers if header.dim > 0}
        device = torch.device("cpu") if on_cpu else accelerator_of(group)
        dim = max(header.dim for header in headers)
        # Create a leaf that requires grad, so that `backward` also runs its collectives on this process.
        return torch.zeros(len(names), 0, dim, dtype=dtype, device=device, requires_grad=True)
    z_MnD = batch.z_MBD.to(dtype)
    if names == batch.names:
        return z_MnD
    zeros_nD = z_MnD.new_zeros(z_MnD.shape[1:])
    index = {name: m for m, name in enumerate(batch.names)}
    return torch.stack([z_MnD[index[name]] if name in index else zeros_nD for name in names])


def _presence(z_MBD: Tensor, headers: list[Header]) -> Tensor:
    """Present rows have length 1, absent rows are 0."""
    if not any(header.absences for header in headers) and same_names(headers):
        return torch.ones_like(z_MBD[..., 0], dtype=torch.bool)
    return (z_MBD.detach() != 0).any(-1)


def _gather_ids(batch: Batch | None, headers: list[Header], shard: Shard, device: torch.device) -> Tensor | None:
    if not any(header.ids for header in headers):
        return None
    ids_n = None if batch is None else batch.ids_B
    if ids_n is None:
        ids_n = torch.zeros(shard.sizes[shard.rank], dtype=torch.int64, device=device)
    return shard.gather_rows(ids_n)
