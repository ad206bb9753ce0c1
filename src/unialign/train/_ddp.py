"""Modules that average gradients over processes (DistributedDataParallel, FSDP2), and pieces of a batch.

DDP averages in a backward pass: with the last piece only, or it would do so once a piece. FSDP2 gathers weights in
every forward and backward pass as well: its processes must make equally many. Processes agree on all this before they
start, since one that waits for another cannot say why.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch.distributed as dist
from torch import nn

from unialign.distributed import Packed, deserialize_error, gather_integers, gather_objects, serialize_error
from unialign.errors import ConfigError, DistributedError

__all__ = ["Wrapped"]

# The number of a process, and its error.
_Failure = tuple[int, Packed]


class Wrapped:
    """The modules, their process groups, and what the processes of these must have in common."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        if isinstance(modules, nn.Module) and not isinstance(modules, Iterable):
            raise ConfigError(f"modules must be a list of modules, got {type(modules).__name__}; put it into a list")
        self.modules: list[Any] = list(modules)
        for module in self.modules:
            if not hasattr(module, "no_sync") and not hasattr(module, "set_requires_gradient_sync"):
                raise ConfigError(
                    f"modules must be DistributedDataParallel modules or modules after `fully_shard`, got "
                    f"{type(module).__name__}"
                )
        self.groups = list(dict.fromkeys(group for module in self.modules for group in _groups_of(module)))
        # Anything else may communicate in a forward pass.
        self.in_step = not all(isinstance(module, nn.parallel.DistributedDataParallel) for module in self.modules)

    def most_pieces(self, own: int) -> int:
        """The largest number of pieces that a process has.

        Raises:
            ConfigError: on every process, if one of them has no piece, or other modules.
        """
        rank = dist.get_rank() if self.groups else 0
        least, most = (own, rank), own
        fewest, many = (len(self.modules), rank), (len(self.modules), rank)
        for group in self.groups:  # one after the other: the largest number in a mesh of several dimensions
            told = gather_integers([*least, most, *fewest, *many], group, doing="counted pieces")
            least, most = min((n, r) for n, r, *_ in told), max(row[2] for row in told)
            fewest, many = min((row[3], row[4]) for row in told), max((row[5], row[6]) for row in told)
        if fewest[0] != many[0]:
            raise ConfigError(
                f"process {fewest[1]} gave {fewest[0]} modules and process {many[1]} gave {many[0]}: give the same "
                f"`modules` in the same order on every process, those of a modality without rows too"
            )
        if self.groups and least[0] == 0:
            raise ConfigError(
                f"process {least[1]} has no piece, so its modules would never meet those of the others; give it one "
                f"piece of zero rows, as `x[:0]` has"
            )
        return most

    @contextmanager
    def met_everywhere(self) -> Iterator[None]:
        """Refuse on every process what the body calls on some of them only, or what fails in it on one of them.

        The collectives of one module would meet those of another: processes hang, or average what does not belong
        together.
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
            # Where modules communicate in a forward pass, the others are inside one and cannot listen.
            if self.groups and not self.in_step:
                with suppress(DistributedError):
                    self._exchange(called, (dist.get_rank(), serialize_error(error)))
            raise
        if (failure := self._exchange(called, None)) is not None:
            rank, told = failure
            raise deserialize_error(told, rank, dist.get_world_size(), did="failed while it encoded its batch")

    def _exchange(self, called: list[int], failure: _Failure | None) -> _Failure | None:
        """The first failure of a process, told on to every group in which this process is.

        Raises:
            ConfigError: no process failed, but what they called differs.
        """
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
                    f"{did_not}; on a process that lacks a modality its encoder still runs, on placeholders that "
                    f"`present` marks as absent"
                )

    @contextmanager
    def averaging(self, *, last: bool) -> Iterator[None]:
        """A backward pass whose gradients are averaged over the processes if it is the last one."""
        with ExitStack() as stack:
            for module in self.modules:
                if hasattr(module, "set_requires_gradient_sync"):
                    module.set_requires_gradient_sync(last)
                    stack.callback(module.set_requires_gradient_sync, True)
                elif not last:
                    stack.enter_context(module.no_sync())
            yield


def _groups_of(module: Any) -> list[Any]:
    if not dist.is_available() or not dist.is_initialized():
        return []
    if isinstance(group := getattr(module, "process_group", None), dist.ProcessGroup):
        return [group]
    meshes = dict.fromkeys(p.device_mesh for p in module.parameters() if hasattr(p, "device_mesh"))
    return [group for mesh in meshes for group in mesh.get_all_groups()]
