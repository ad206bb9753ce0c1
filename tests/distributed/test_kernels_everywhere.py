"""Test reductions divided among processes: each process gets the total value and the gradient of its own rows.

Shapes: `N` selected rows, `D` dim.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from processes import Pool
from unialign.distributed._shard import Shard
from unialign.losses import create
from unialign.ops._density import log_row_sums_between
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._row_selection import select_rows
from unialign.ops._softplus import softplus_total
from unialign.ops._uniformity import log_row_sums, log_total

ITEMS, DIM = 13, 5
# Tile sides; 2 and 4 leave a last tile with a single row, and ITEMS gives only one tile.
SIDES = (2, 4, ITEMS)
SIZES = {2: (9, 4), 3: (4, 0, 9)}
KERNELS = {
    "clip": KernelFunction("clip", 0.07),
    "cold": KernelFunction("clip", 0.005),
    "hot": KernelFunction("clip", 100.0),
    "geodesic": KernelFunction("geodesic", 0.5),
    "cold geodesic": KernelFunction("geodesic", 0.1),
}
IDS = {
    "different": None,
    "ids": torch.tensor([3, 1, 3, 3, 0, 7, 8, 9, 1, 10, 11, 12, 13]),
    # The rows of the last process have the same id, so they form pairs only with rows of other processes.
    "blocks": torch.tensor([0, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
}


def unit(seed: int, items: int = ITEMS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(items, DIM, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def presence(seed: int) -> Tensor:
    return torch.rand(ITEMS, generator=torch.Generator().manual_seed(seed)) < 0.8


def assert_divided(pool: Pool, kernel: Any, inputs: list[Tensor], *arguments: Any, per_row: int) -> None:
    value, *gradients = differentiated(0, None, kernel, inputs, None, *arguments)
    for processes, sizes in SIZES.items():
        parts = pool.run(differentiated, kernel, inputs, sizes, *arguments, processes=processes)
        for rank, part in enumerate(parts):
            own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            torch.testing.assert_close(part[0], value, rtol=1e-12, atol=1e-12)
            assert torch.equal(part[0], parts[0][0])
            for place, (found, expected) in enumerate(zip(part[1:], gradients, strict=True)):
                rows = own if place < per_row else ...
                scale = float(expected.abs().max()) + 1e-3
                torch.testing.assert_close(found[rows], expected[rows], rtol=0, atol=1e-12 * scale)


def differentiated(
    rank: int, group: Any, kernel: Any, inputs: list[Tensor], sizes: Any, *arguments: Any
) -> list[Tensor]:
    """Return the value and the gradients, after checking that a second backward pass gives equal gradients."""
    shard = None if sizes is None else Shard(sizes, rank, group)
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = kernel(shard, *leaves, *arguments)
    weighted = value @ torch.linspace(0.5, 2.0, len(value)).double() if value.dim() else value * 1.5
    gradients = torch.autograd.grad(weighted, leaves, retain_graph=True)
    for once, again in zip(gradients, torch.autograd.grad(weighted, leaves), strict=True):
        assert torch.equal(once, again)
    return [value.detach(), *gradients]


def total_of(shard: Any, z_BD: Tensor, name: str, ids: str, weighted: bool, side: int) -> Tensor:
    chosen = select_rows(presence(3), IDS[ids], shard)
    weights_N = torch.linspace(0.1, 1.0, chosen.size).double() if weighted else None
    z_ND = chosen.take(z_BD)
    return log_total(z_ND, kernel=KERNELS[name], selection=chosen, weights_N=weights_N, side=side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", IDS)
def test_log_of_a_total(pool: Pool, ids: str, side: int) -> None:
    for name in KERNELS:
        for weighted in (False, True):
            assert_divided(pool, total_of, [unit(1)], name, ids, weighted, side, per_row=1)


def row_sums_of(shard: Any, z_BD: Tensor, name: str, ids: str, self_pairs: Any, side: int) -> Tensor:
    chosen = select_rows(presence(3), IDS[ids], shard)
    sums_N = log_row_sums(chosen.take(z_BD), kernel=KERNELS[name], selection=chosen, self_pairs=self_pairs, side=side)
    return torch.where(sums_N == -torch.inf, 0.0, sums_N)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", IDS)
def test_row_sums(pool: Pool, ids: str, side: int) -> None:
    for name in KERNELS:
        for self_pairs in ("excluded", "included"):
            assert_divided(pool, row_sums_of, [unit(1)], name, ids, self_pairs, side, per_row=1)


def softplus_of(shard: Any, x_BD: Tensor, y_BD: Tensor, scale: Tensor, bias: Tensor, ids: str, side: int) -> Tensor:
    chosen = select_rows(presence(3), IDS[ids], shard)
    return softplus_total(chosen.take(x_BD), chosen.take(y_BD), scale, bias, selection=chosen, side=side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", IDS)
def test_softplus_of_all_pairs(pool: Pool, ids: str, side: int) -> None:
    for scale, bias in ((10.0, -10.0), (112.0, 3.0)):
        numbers = [torch.tensor(value, dtype=torch.float64) for value in (scale, bias)]
        assert_divided(pool, softplus_of, [unit(1), unit(2), *numbers], ids, side, per_row=2)


def sums_between(shard: Any, x_BD: Tensor, y_BD: Tensor, name: str, ids: str, side: int) -> Tensor:
    """Return the log row sums between two sets of different sizes, with 0 for rows without a pair."""
    chosen, others = (select_rows(presence(seed), IDS[ids], shard) for seed in (3, 4))
    codes = None
    if IDS[ids] is not None:
        codes = chosen.take(IDS[ids]), others.take(IDS[ids])
    layouts = None if shard is None else (chosen, others)
    sums_N = log_row_sums_between(
        chosen.take(x_BD), others.take(y_BD), kernel=KERNELS[name], codes=codes, layouts=layouts, side=side
    )
    return torch.where(sums_N == -torch.inf, 0.0, sums_N)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", IDS)
def test_sums_between_two_sets(pool: Pool, ids: str, side: int) -> None:
    for name in KERNELS:
        assert_divided(pool, sums_between, [unit(1), unit(2)], name, ids, side, per_row=2)


class Multiplications(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name != "einsum", "count it too"
        if name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"):
            a, b = args[-2:]
            self.count += a.numel() * b.shape[-1]
        return function(*args, **(kwargs or {}))


def products(rank: int, group: Any, name: str, options: dict[str, Any], batches: list[Any]) -> int:
    leaves = {modality: z.clone().requires_grad_() for modality, z in batches[rank].items()}
    with Multiplications() as counter:
        create(name, **options)(leaves, group=group).total.backward()
    return counter.count


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        # Each of three processes computes two products over a third of the pairs. A single process computes only half
        # of the pairs, since the matrix of cosines within a modality is symmetric.
        ("align_uniform", {"anchor": "m0"}, 0.4),
        # Each process computes four products over a third of the pairs, compared with three over all pairs on one
        # process.
        ("sigmoid", {}, 0.45),
        # Each process computes three products over a third of the pairs within a modality (one process: three over
        # half) and five over a third of the pairs between modalities (one process: four over all).
        ("cs_aligner", {"contrast_weight": 0.0, "bandwidth": 0.5}, 0.42),
        ("cs_aligner", {"contrast_weight": 0.0, "bandwidth": 0.5, "divergence": "mmd"}, 0.42),
        ("cs_aligner", {"contrast_weight": 0.0, "bandwidth": 0.5, "divergence": "holder"}, 0.42),
        ("cua", {"anchor": "all", "cross_term": "xu"}, 0.5),
        # Each process computes three products over a third of the pairs (one process: three over half and one over
        # all).
        ("unialign", {"anchor": "m0"}, 0.4),
        ("unialign", {"anchor": "m0", "preset": "geodesic"}, 0.4),
        # The partitions across modalities take six products over a third of the pairs (one process: three over all).
        ("unialign", {"anchor": "m0", "partition_mix": 0.0}, 0.67),
        # Each process computes three products over a third of the pairs (one process: three over all).
        ("infonce", {"anchor": "m0", "direction": "forward", "hardness": 1.0}, 0.34),
    ],
)
def test_work_is_divided_over_processes(pool: Pool, name: str, options: dict[str, Any], most: float) -> None:
    generator = torch.Generator().manual_seed(1)
    batch = {f"m{m}": torch.randn(600, 8, generator=generator) for m in range(2)}
    whole = products(0, None, name, options, [batch])
    parts = [{name: z[rank * 200 : (rank + 1) * 200] for name, z in batch.items()} for rank in range(3)]
    for part in pool.run(products, name, options, parts, processes=3):
        assert part <= most * whole
