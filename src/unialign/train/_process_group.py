"""Exchange rows, results, errors and gradients between the processes that train one model.

The loss covers the rows of all processes, so the mean of the gradients over processes is the gradient of the whole
batch.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unialign.distributed import (
    check_device,
    deserialize_error,
    first_error,
    gather_integers,
    gather_objects,
    naming_failures,
    processes_of,
    serialize_error,
)
from unialign.errors import ConfigError

T = TypeVar("T")

_DOING = "was training"
# Seconds between two requests to the store while process 0 works.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.25
# Gradients that are averaged at once, in bytes.
_BUCKET_BYTES = 1 << 25


@dataclass(frozen=True)
class ProcessGroup:
    """Group of processes; `group` is None for a single process, for which no method communicates."""

    rank: int = 0
    world_size: int = 1
    group: Any = None

    @property
    def is_rank0(self) -> bool:
        return self.rank == 0

    def check_device(self, device: torch.device) -> None:
        if self.world_size > 1:
            check_device(device, self.group, what="parameters are")

    def local_rows(self, rows_B: Tensor) -> Tensor:
        """Return contiguous rows, possibly none."""
        items = len(rows_B)
        return rows_B[items * self.rank // self.world_size : items * (self.rank + 1) // self.world_size]

    def broadcast_from_rank0(self, work: Callable[[], T]) -> T:
        """Return the result or raise the error of process 0 on every process. `work` may take longer than the timeout
        of collectives.
        """
        if self.world_size == 1:
            return work()
        result, failure = _attempt(work) if self.is_rank0 else (None, None)
        with naming_failures(self.group, _DOING):
            self._wait_for_rank0()
        shared: list[Any] = [result, None if failure is None else serialize_error(failure)]
        with naming_failures(self.group, _DOING):
            dist.broadcast_object_list(shared, group=self.group, group_src=0)
        if shared[1] is not None:
            raise deserialize_error(shared[1], 0, self.world_size) if failure is None else failure
        received: T = shared[0]
        return received

    def _wait_for_rank0(self) -> None:
        # Counts of calls are kept in the store of the job, since a collective would end at its timeout.
        store = dist.distributed_c10d._get_default_store()
        if store is None:  # MPI
            return
        key = f"unialign/calls/{self.group.group_name}"
        calls = store.add(f"{key}/{self.rank}", 1)
        pause = _FIRST_PAUSE
        while not self.is_rank0 and store.add(f"{key}/0", 0) < calls:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def run_all_or_raise(self, work: Callable[[], T]) -> T:
        """If `work` fails on a process, raise an error on all, so that none of them hangs."""
        if self.world_size == 1:
            return work()
        result, failure = _attempt(work)
        if self.all_reduce_max(int(failure is not None)) == 0:
            return result  # type: ignore[return-value]
        remote = first_error(self.all_gather(None if failure is None else serialize_error(failure)))
        assert remote is not None
        raise remote if failure is None else failure

    def all_gather(self, local: T) -> list[T]:
        if self.world_size == 1:
            return [local]
        return gather_objects(local, self.group, doing=_DOING)

    def check_same(self, facts: dict[str, Any]) -> None:
        """Raise an error on every process for the first value that differs between processes."""
        first, *others = self.all_gather(facts)
        for rank, other in enumerate(others, start=1):
            for name, value in first.items():
                if other[name] != value:
                    raise ConfigError(
                        f"process {rank} of {self.world_size} calls fit with {name}={other[name]!r:.60}, but process 0 "
                        f"with {value!r:.60}; all processes must call fit with the same arguments"
                    )

    def all_reduce_max(self, number: int) -> int:
        if self.world_size == 1:
            return number
        return max(gather_integers([number], self.group, doing=_DOING))[0]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        if self.world_size == 1:
            return
        for tensor in tensors:
            with naming_failures(self.group, _DOING):
                dist.broadcast(tensor.detach(), group=self.group, group_src=0)

    @torch.no_grad()
    def mean_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """A parameter with a gradient on at least one process gets a gradient on all processes."""
        if self.world_size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        counts = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
        with naming_failures(self.group, _DOING):
            dist.all_reduce(counts, group=self.group)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradients[place].flatten() for place in bucket])
            with naming_failures(self.group, _DOING):
                dist.all_reduce(flat, group=self.group)
            sums = torch.split(flat.div_(self.world_size), [gradients[place].numel() for place in bucket])
            for place, mean in zip(bucket, sums, strict=True):
                gradients[place] = mean.view_as(gradients[place])
        for parameter, count, gradient in zip(parameters, counts.tolist(), gradients, strict=True):
            parameter.grad = gradient if count > 0 else None


def _buckets(gradients: Sequence[Tensor]) -> list[list[int]]:
    """Divide gradients into runs of one dtype and limited size, so that large encoders need little more memory."""
    found: list[list[int]] = []
    size = 0
    for place, gradient in enumerate(gradients):
        is_new = not found or gradient.dtype != gradients[found[-1][-1]].dtype
        if is_new or size + gradient.nbytes > _BUCKET_BYTES:
            found.append([])
            size = 0
        found[-1].append(place)
        size += gradient.nbytes
    return found


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


def process_group_of(group: Any) -> ProcessGroup:
    shared = processes_of(group)
    if shared is None:
        return ProcessGroup()
    return ProcessGroup(dist.get_rank(shared), dist.get_world_size(shared), shared)
