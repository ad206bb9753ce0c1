"""The processes that train one space together: who they are, what they share, and how they agree.

All hold the same weights. Each embeds its own rows of a batch; the loss is that of all rows, so that the mean of the
gradients over the processes is the gradient of the whole batch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unialign.distributed import (
    check_device,
    collective_device,
    deserialize_error,
    first_error,
    gather_objects,
    naming_failures,
    processes_of,
    serialize_error,
)
from unialign.errors import ConfigError

__all__ = ["ProcessGroup", "process_group_of"]

T = TypeVar("T")

_DOING = "trained with them"


@dataclass(frozen=True)
class ProcessGroup:
    """Attributes:
    rank: this process's number among them; process 0 writes.
    count: how many there are.
    group: their process group, None for a process alone.
    """

    rank: int = 0
    world_size: int = 1
    group: Any = None

    @property
    def is_rank0(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def check_device(self, device: torch.device) -> None:
        """`ConfigError` unless the group's backend takes tensors of this device."""
        if self.world_size > 1:
            check_device(device, self.group, what="parameters lie")

    def own(self, rows_B: Tensor) -> Tensor:
        """This process's rows of a batch, consecutive ones; none where there are fewer rows than processes."""
        items = len(rows_B)
        return rows_B[items * self.rank // self.world_size : items * (self.rank + 1) // self.world_size]

    def broadcast_from_rank0(self, work: Callable[[], T]) -> T:
        """What `work` returns on process 0, which alone does it; its error is raised on every process."""
        if self.world_size == 1:
            return work()
        told: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.is_rank0:
            try:
                told[0] = work()
            except BaseException as error:
                failure, told[1] = error, serialize_error(error)
        with naming_failures(self.group, _DOING):
            dist.broadcast_object_list(told, group=self.group, group_src=0)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise deserialize_error(told[1], 0, self.world_size)
        result: T = told[0]
        return result

    def run_all_or_raise(self, work: Callable[[], T]) -> T:
        """What `work` returns here; it runs on every process, and what it raises on one of them is raised on all.

        Who went on alone would wait for the others in vain.
        """
        if self.world_size == 1:
            return work()
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        if self.all_reduce_max(int(failure is not None)) == 0:
            return result  # type: ignore[return-value]
        told = first_error(self.all_gather(None if failure is None else serialize_error(failure)))
        assert told is not None
        raise told if failure is None else failure

    def all_gather(self, own: T) -> list[T]:
        """What each process brings, by rank."""
        if self.world_size == 1:
            return [own]
        return gather_objects(own, self.group, doing=_DOING)

    def check_same(self, facts: dict[str, Any]) -> None:
        """`ConfigError` on every process, naming the first fact that is not the same everywhere."""
        everywhere = self.all_gather(facts)
        for rank, other in enumerate(everywhere):
            for name in everywhere[0]:
                if other[name] != everywhere[0][name]:
                    raise ConfigError(
                        f"process {rank} of {self.world_size} calls fit with {name}={_shown(other[name])}, process 0 with "
                        f"{_shown(everywhere[0][name])}; all processes train one space, with the same arguments"
                    )

    def all_reduce_max(self, number: int) -> int:
        """The largest of a number that each process has."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number, device=collective_device(self.group))
        with naming_failures(self.group, _DOING):
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return int(value)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of process 0."""
        if self.world_size == 1:
            return
        for tensor in tensors:
            with naming_failures(self.group, _DOING):
                dist.broadcast(tensor.detach(), group=self.group, group_src=0)

    @torch.no_grad()
    def mean_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average `.grad` over the processes, in one collective.

        A parameter that has a gradient on some process has one on all afterwards; where none has one, it stays None.
        """
        if self.world_size == 1:
            return
        given = [float(p.grad is not None) for p in parameters]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        head = torch.tensor(given, dtype=parts[0].dtype, device=parts[0].device)
        whole = torch.cat([head, *(part.flatten() for part in parts)])
        with naming_failures(self.group, _DOING):
            dist.all_reduce(whole, group=self.group)
        found, *means = torch.split(whole, [len(parameters), *(p.numel() for p in parameters)])
        for parameter, times, mean in zip(parameters, found.tolist(), means, strict=True):
            parameter.grad = mean.div_(self.world_size).view_as(parameter) if times > 0 else None


def process_group_of(group: Any) -> ProcessGroup:
    """The processes of a group as `Objective.forward` takes it: `"auto"`, None, or a process group."""
    shared = processes_of(group)
    if shared is None:
        return ProcessGroup()
    return ProcessGroup(dist.get_rank(shared), dist.get_world_size(shared), shared)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
