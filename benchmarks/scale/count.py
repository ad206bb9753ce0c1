"""Count the flops, bytes of memory and messages of a forward and a backward pass of a loss.

Only operations and storages of torch are counted: temporaries inside an operation, and buffers inside a collective, are
not.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Counts", "count_step"]


@dataclass
class Counts:
    """Counts of one process.

    Attributes:
        forward, backward: flops of matrix products; a multiplication and an addition are two.
        kept: bytes of all tensors between the passes, with inputs.
        peak: largest number of bytes of all tensors at a time, with inputs and their gradients.
        sent: bytes that the process passes to collectives, one entry per collective of the forward pass.
        sent_backward: the same for the backward pass.
    """

    forward: float = 0.0
    backward: float = 0.0
    kept: int = 0
    peak: int = 0
    sent: list[int] = field(default_factory=list)
    sent_backward: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def count_step(rows: Mapping[str, Tensor], compute: Callable[[Mapping[str, Tensor]], Tensor]) -> Counts:
    """Count a call of `compute` and its backward pass."""
    counts = Counts()
    leaves = {name: z_BD.detach().clone().requires_grad_() for name, z_BD in rows.items()}
    with _Memory(leaves.values()) as memory:
        with _flops() as flops, _collectives(counts.sent):
            total = compute(leaves)
        counts.forward, counts.kept = flops.get_total_flops(), memory.now
        with _flops() as flops, _collectives(counts.sent_backward):
            total.backward()
        counts.backward = flops.get_total_flops()
        counts.peak = memory.peak
    return counts


def _flops() -> FlopCounterMode:
    # torch counts `addmm` and `baddbmm`, but not their in-place forms.
    in_place = dict.fromkeys((torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), _product_flops)
    return FlopCounterMode(display=False, custom_mapping=in_place)


def _product_flops(into: torch.Size, left: torch.Size, right: torch.Size, out_shape: Any = None, **options: Any) -> int:
    return 2 * left.numel() * right[-1]


class _Memory(TorchDispatchMode):
    """Sum of the sizes of all storages that operations have returned and that are still referenced."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self.known: dict[int, Any] = {}
        for tensor in inputs:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree.tree_map_only(Tensor, self._add, result)
        return result

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number not in self.known:
            size = storage.nbytes()
            self.known[number] = weakref.ref(storage, lambda _: self._remove(number, size))
            self.now += size
            self.peak = max(self.peak, self.now)
        return tensor

    def _remove(self, number: int, size: int) -> None:
        self.known.pop(number, None)
        self.now -= size


@contextmanager
def _collectives(sent: list[int]) -> Iterator[None]:
    """Append the bytes that this process passes to each collective."""
    originals = {name: getattr(dist, name) for name in ("all_gather", "all_reduce", "all_gather_object")}

    def counted(name: str, place: int) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            sent.append(args[place].nbytes if isinstance(args[place], Tensor) else 0)
            return originals[name](*args, **options)

        return call

    try:
        dist.all_gather = counted("all_gather", 1)
        dist.all_reduce = counted("all_reduce", 0)
        dist.all_gather_object = counted("all_gather_object", 1)
        yield
    finally:
        for name, function in originals.items():
            setattr(dist, name, function)
