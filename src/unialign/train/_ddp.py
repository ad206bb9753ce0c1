"""Average the gradients of DDP and FSDP2 modules once per step.

DDP averages gradients in the backward pass; this is enabled only for the last micro-batch. FSDP2 also gathers weights
in every forward and backward pass, so all processes must run the same number of passes, which is checked in advance: a
process that waits in a collective cannot raise an error.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch.distributed as dist
from torch import nn

from unialign.distributed import Packed, deserialize_error, gather_integers, gather_objects, serialize_error
from unialign.errors import ConfigError, DistributedError


class SynchronizedModules:
    def __init__(self, modules: Iterable[nn.Module]) -> None:
        if isinstance(modules, nn.Module) and not isinstance(modules, Iterable):
            raise ConfigError(f"modules must be a list of modules, got {type(modules).__name__}; put it into a list")
        self.modules: list[Any] = list(modules)
        for module in self.modules:
            if not hasattr(module, "no_sync") and not hasattr(module, "set_requires_gradient_sync"):
                raise ConfigError(
                    f"modules must be DistributedDataParallel modules or modules sharded by `fully_shard`, got "
                    f"{type(module).__name__}"
                )
        self.groups = list(dict.fromkeys(group for module in self.modules for group in _groups_of(module)))
        # FSDP2 communicates in the forward pass, DDP does not.
        self.forward_communicates = not all(
            isinstance(module, nn.parallel.DistributedDataParallel) for module in self.modules
        )

    def max_micro_batches(self, own: int) -> int:
        """Raise ConfigError on every process if a process has no micro-batch or the numbers of modules differ."""
        rank = dist.get_rank() if self.groups else 0
        least, most = (own, rank), own
        fewest, many = (len(self.modules), rank), (len(self.modules), rank)
        for group in self.groups:  # successive reductions give the extremes over a multidimensional mesh
            counts = gather_integers([*least, most, *fewest, *many], group, doing="counted micro-batches")
            least, most = min((n, r) for n, r, *_ in counts), max(row[2] for row in counts)
            fewest, many = min((row[3], row[4]) for row in counts), max((row[5], row[6]) for row in counts)
        if fewest[0] != many[0]:
            raise ConfigError(
                f"process {fewest[1]} passed {fewest[0]} modules, but process {many[1]} passed {many[0]}; pass the "
                f"same `modules` in the same order on every process, including those of a modality without rows"
            )
        if self.groups and least[0] == 0:
            raise ConfigError(
                f"process {least[1]} has no micro-batch, so the modules of other processes would wait for it; pass "
                f"a micro-batch of zero rows, such as `x[:0]`"
            )
        return most

    @contextmanager
    def checked_forward(self) -> Iterator[None]:
        """Without this check, processes would join collectives of different modules, and would hang or average
        gradients of different modules.
        """
        called = [0] * len(self.modules)

        def note(number: int) -> None:
            called[number] = 1

        try:
            with ExitStack() as stack:
                for number, module in enumerate(self.modules):
                    hook = module.register_forward_pre_hook(lambda *_, number=number: note(number))
                    stack.callback(hook.remove)
                yield
        except BaseException as error:
            # If forward passes communicate, the other processes wait in a forward pass and cannot join this exchange.
            if self.groups and not self.forward_communicates:
                with suppress(DistributedError):
                    self._exchange(called, (dist.get_rank(), serialize_error(error)))
            raise
        if (failure := self._exchange(called, None)) is not None:
            rank, packed = failure
            raise deserialize_error(packed, rank, dist.get_world_size(), did="failed while it encoded its batch")

    def _exchange(self, called: list[int], failure: tuple[int, Packed] | None) -> tuple[int, Packed] | None:
        """Return the rank and error of the first failed process."""
        for group in self.groups:
            rows = gather_integers([int(failure is not None), *called], group, doing="encoded a batch")
            if any(failed for failed, *_ in rows):
                failures = gather_objects(failure, group, doing="encoded a batch")
                failure = next(found for found in failures if found is not None)
            else:
                self._check_called(dist.get_process_group_ranks(group), [ran for _, *ran in rows])
        return failure

    def _check_called(self, ranks: list[int], called: list[list[int]]) -> None:
        for number, (module, ran) in enumerate(zip(self.modules, zip(*called, strict=True), strict=True)):
            if len(set(ran)) > 1:
                did, did_not = (
                    ", ".join(str(rank) for rank, yes in zip(ranks, ran, strict=True) if yes == wanted)
                    for wanted in (1, 0)
                )
                raise ConfigError(
                    f"encode called modules[{number}] ({type(module).__name__}) on process {did}, but not on "
                    f"{did_not}; on a process without rows of a modality, call its encoder on placeholder rows that "
                    f"`present` marks as absent"
                )

    @contextmanager
    def gradient_sync(self, *, enabled: bool) -> Iterator[None]:
        with ExitStack() as stack:
            for module in self.modules:
                if hasattr(module, "set_requires_gradient_sync"):
                    module.set_requires_gradient_sync(enabled)
                    stack.callback(module.set_requires_gradient_sync, True)
                elif not enabled:
                    stack.enter_context(module.no_sync())
            yield


def _groups_of(module: Any) -> list[Any]:
    if not dist.is_available() or not dist.is_initialized():
        return []
    if isinstance(group := getattr(module, "process_group", None), dist.ProcessGroup):
        return [group]
    meshes = dict.fromkeys(p.device_mesh for p in module.parameters() if hasattr(p, "device_mesh"))
    return [group for mesh in meshes for group in mesh.get_all_groups()]
