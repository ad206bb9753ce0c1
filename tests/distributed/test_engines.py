"""Test that three training steps with DDP or FSDP2, with and without the gradient cache, equal those of one process.

Shapes: `M` modalities, `B` items, `D` dim.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from shards import Batch, assert_close, cut
from torch import Tensor, nn

from loss_cases import draw_batch
from processes import Pool
from unialign.losses import Objective, create
from unialign.train import grad_cache_backward

NAMES = ("m0", "m1", "m2")
STEPS = 3
SIZES = [(5, 4), (3, 8), (0, 5)]
MICRO_BATCH_SIZES = [(2, 4), (2, 2), (1, 1)]


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        made = {name: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6)) for name in NAMES}
        self.encoders = nn.ModuleDict(made).double()

    def forward(self, features: Batch) -> Batch:
        return {name: self.encoders[name](x) for name, x in features.items()}


def wrap_all(towers: Towers, group: Any, **options: Any) -> tuple[Callable[[Batch], Batch], list[nn.Module]]:
    module = nn.parallel.DistributedDataParallel(towers, process_group=group, **options)
    return module, [module]


def wrap_each(towers: Towers, group: Any) -> tuple[Callable[[Batch], Batch], list[nn.Module]]:
    modules = {name: nn.parallel.DistributedDataParallel(towers.encoders[name], process_group=group) for name in NAMES}
    return lambda features: {name: modules[name](x) for name, x in features.items()}, list(modules.values())


def shard_each(towers: Towers, group: Any) -> tuple[Callable[[Batch], Batch], list[nn.Module]]:
    from torch.distributed.fsdp import fully_shard

    for encoder in towers.encoders.values():
        fully_shard(encoder, mesh=mesh_of(group))
    return towers, list(towers.encoders.values())


def shard_all(towers: Towers, group: Any) -> tuple[Callable[[Batch], Batch], list[nn.Module]]:
    from torch.distributed.fsdp import fully_shard

    shard_each(towers, group)
    fully_shard(towers, mesh=mesh_of(group))
    return towers, [towers]


def mesh_of(group: Any) -> Any:
    from torch.distributed.device_mesh import DeviceMesh

    return DeviceMesh.from_group(group, "cpu")


def wrap_some(towers: Towers, group: Any) -> tuple[Callable[[Batch], Batch], list[nn.Module]]:
    return wrap_all(towers, group, find_unused_parameters=True)


ENGINES: dict[str, Any] = {
    "ddp-all": wrap_all,
    "ddp-some": wrap_some,
    "ddp-each": wrap_each,
    "fsdp-each": shard_each,
    "fsdp-all": shard_all,
}


def split_micro_batches(features: Batch, size: int) -> list[Batch]:
    rows = len(next(iter(features.values())))
    return [{name: x[at : at + size] for name, x in features.items()} for at in range(0, max(rows, 1), size)]


def take_step(towers: Towers, objective: Objective, group: Any, averaged: bool) -> dict[str, Tensor]:
    found = {}
    for prefix, module in (("towers", towers), ("objective", objective)):
        for name, parameter in module.named_parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradient = parameter.grad
            if group is not None and (prefix == "objective" or not averaged):
                dist.all_reduce(gradient, group=group)
                gradient /= dist.get_world_size(group)
            found[f"{prefix}.{name}"] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
            with torch.no_grad():
                parameter -= 0.1 * gradient
            parameter.grad = None
    return found


def new_objective(name: str) -> Objective:
    options = {"temperature_mode": "learnable"} if name == "infonce" else {}
    return create(name, anchor="m0", **options).double()


def with_cache(rank: int, group: Any, engine: str, name: str, batches: list[list[Batch]]) -> list[dict[str, Tensor]]:
    towers, objective = Towers(), new_objective(name)
    for encoder in towers.encoders.values():
        encoder.register_buffer("count", torch.zeros(2))
    encode, modules = ENGINES[engine](towers, group)
    answers = []
    for step in range(STEPS):
        micro_batches = split_micro_batches(batches[step][rank], MICRO_BATCH_SIZES[step][rank])
        out = grad_cache_backward(objective, encode, micro_batches, group=group, modules=modules)
        answers.append({"total": out.total, **take_step(towers, objective, group, averaged=True)})
    return answers


def one_process(name: str, wholes: list[Batch], presents: list[Batch] | None = None) -> list[dict[str, Tensor]]:
    towers, objective = Towers(), new_objective(name)
    answers = []
    for step, batch in enumerate(wholes):
        total = objective(towers(batch), present=None if presents is None else presents[step], group=None).total
        total.backward()
        answers.append({"total": total.detach(), **take_step(towers, objective, None, averaged=True)})
    return answers


def assert_same_steps(parts: list[list[dict[str, Tensor]]], expected: list[dict[str, Tensor]]) -> None:
    for part in parts:
        for found, known in zip(part, expected, strict=True):
            assert found.keys() == known.keys()
            for name, value in found.items():
                assert_close(value, known[name], 1e-12)


def draw_steps() -> tuple[list[Batch], list[list[Batch]]]:
    wholes = [draw_batch(31 + step, 3, sum(sizes), 5) for step, sizes in enumerate(SIZES)]
    shares: Any = [cut(whole, sizes) for whole, sizes in zip(wholes, SIZES, strict=True)]
    return wholes, shares


engines = pytest.mark.parametrize("engine", ENGINES)


@engines
@pytest.mark.parametrize("name", ["infonce", "unialign"])
def test_cache_with_different_numbers_of_micro_batches(pool: Pool, name: str, engine: str) -> None:
    wholes, shares = draw_steps()
    assert_same_steps(pool.run(with_cache, engine, name, shares, processes=2), one_process(name, wholes))


def on_a_mesh(rank: int, group: Any, batches: list[Batch]) -> list[dict[str, Tensor]]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    towers, objective = Towers(), new_objective("unialign")
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    for encoder in towers.encoders.values():
        fully_shard(encoder, mesh=mesh)
    micro_batches = split_micro_batches(batches[rank], 1)
    out = grad_cache_backward(objective, towers, micro_batches, modules=towers.encoders.values())
    return [{"total": out.total, **take_step(towers, objective, dist.group.WORLD, averaged=True)}]


def test_cache_on_a_mesh_of_two_dimensions(pool: Pool) -> None:
    whole = draw_batch(37, 3, 6, 5)
    assert_same_steps(pool.run(on_a_mesh, cut(whole, (3, 1, 0, 2))), one_process("unialign", [whole]))


def random_numbers(rank: int, group: Any, batches: list[Batch]) -> bool:
    towers = Towers()
    encode, modules = shard_each(towers, group)

    def with_dropout(features: Batch) -> Batch:
        return encode({name: nn.functional.dropout(x, 0.5) for name, x in features.items()})

    micro_batches = split_micro_batches(batches[rank], MICRO_BATCH_SIZES[0][rank])
    torch.manual_seed(3)
    for micro_batch in micro_batches:
        for x in micro_batch.values():
            nn.functional.dropout(x, 0.5)
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    grad_cache_backward(create("align_uniform", anchor="m0"), with_dropout, micro_batches, group=group, modules=modules)
    return torch.equal(torch.get_rng_state(), expected)


def test_additional_passes_draw_no_random_numbers(pool: Pool) -> None:
    """Under FSDP2, the process with one micro-batch encodes it three times to match the other process."""
    _, shares = draw_steps()
    assert pool.run(random_numbers, shares[0], processes=2) == [True, True]


def reductions(rank: int, group: Any, engine: str, batches: list[Batch]) -> dict[str, int]:
    towers = Towers()
    encode, modules = ENGINES[engine](towers, group)
    micro_batches = split_micro_batches(batches[rank], MICRO_BATCH_SIZES[0][rank])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        grad_cache_backward(create("align_uniform", anchor="m0"), encode, micro_batches, group=group, modules=modules)
    names = [event.name for event in seen.events() or ()]
    return {kind: names.count(f"c10d::{kind}") for kind in ("allreduce_", "_reduce_scatter_base_")}


@pytest.mark.parametrize(
    ("engine", "kind", "times"), [("ddp-each", "allreduce_", 3), ("fsdp-each", "_reduce_scatter_base_", 3)]
)
def test_cache_sums_the_gradients_of_a_module_once(pool: Pool, engine: str, kind: str, times: int) -> None:
    """The processes have 3 and 1 micro-batches, so a reduction per micro-batch would hang."""
    _, shares = draw_steps()
    for counted in pool.run(reductions, engine, shares[0], processes=2):
        assert counted.pop(kind) == times
        assert set(counted.values()) == {0}


# The following tests have a process without a modality.

# For each step, this lists the process that lacks a modality, and the modality. No process has m2 in the last step.
LACKING = [(1, "m1"), (0, "m0"), (1, "m2")]


def without_a_modality(
    rank: int, group: Any, engine: str, way: str, cache: str, batches: list[list[Batch]]
) -> list[dict[str, Tensor]]:
    towers, objective = Towers(), new_objective("unialign")
    encode, modules = ENGINES[engine](towers, group)

    def encode_present(features: Batch, present: Batch) -> Batch:
        """Encode only the present rows, possibly none."""
        rows = {name: present[name].nonzero()[:, 0] for name in features}
        z_ND = encode({name: x[rows[name]] for name, x in features.items()})
        return {
            name: torch.zeros(len(x), 6, dtype=x.dtype).index_put((rows[name],), z_ND[name])
            for name, x in features.items()
        }

    def encode_micro_batch(micro_batch: tuple[Batch, Batch]) -> Batch:
        return encode_present(*micro_batch) if way == "present rows" else encode(micro_batch[0])

    answers = []
    for step, (lacking, absent) in enumerate(LACKING):
        features = dict(batches[step][rank])
        rows = SIZES[step][rank]
        present = {name: torch.full((rows,), (rank, name) != (lacking, absent)) for name in features}
        if way == "left out" and rank == lacking:
            del features[absent], present[absent]
        if cache == "none":
            total = objective(encode_micro_batch((features, present)), present=present, group=group).total
            total.backward()
        else:
            size = MICRO_BATCH_SIZES[step][rank]
            total = grad_cache_backward(
                objective,
                encode_micro_batch,
                list(zip(split_micro_batches(features, size), split_micro_batches(present, size), strict=True)),
                present=present,
                group=group,
                modules=modules,
            ).total
        answers.append({"total": total.detach(), **take_step(towers, objective, group, averaged=True)})
    return answers


@pytest.mark.parametrize("cache", ["none", "cached"])
@pytest.mark.parametrize(
    ("engine", "way"),
    [("ddp-some", "left out")] + [(engine, way) for engine in ENGINES for way in ("placeholders", "present rows")],
)
def test_process_without_a_modality(pool: Pool, engine: str, way: str, cache: str) -> None:
    """A missing modality is encoded from placeholders or zero rows, or left out with all encoders in one DDP module."""
    wholes, shares = draw_steps()
    presents = []
    for whole, sizes, (lacking, absent) in zip(wholes, SIZES, LACKING, strict=True):
        owner = torch.arange(2).repeat_interleave(torch.tensor(sizes))
        presents.append({name: (owner != lacking) | torch.tensor(name != absent) for name in whole})
    parts = pool.run(without_a_modality, engine, way, cache, shares, processes=2)
    assert_same_steps(parts, one_process("unialign", wholes, presents))


# Errors must be raised on every process, since the other processes would wait otherwise.


def interrupted(micro_batch: Batch) -> Batch:
    raise KeyboardInterrupt("enough")


def raised_error(rank: int, group: Any, engine: str, trouble: str, batches: list[Batch]) -> tuple[str, str]:
    towers = Towers()
    encode, modules = ENGINES[engine](towers, group)
    micro_batches = split_micro_batches(batches[rank], MICRO_BATCH_SIZES[0][rank])
    if rank == 1 and trouble == "no micro-batch":
        micro_batches = []
    if rank == 1 and trouble == "no rows":
        micro_batches = [{}]
    if rank == 1 and trouble == "other modules":
        modules = modules[1:]
    if rank == 1 and trouble == "left out":
        micro_batches = [{name: x for name, x in micro_batch.items() if name != "m1"} for micro_batch in micro_batches]
    if rank == 1 and trouble == "failure":
        micro_batches[-1]["m2"] = micro_batches[-1]["m2"][:, :3]
    if rank == 1 and trouble == "ctrl-c":
        encode = interrupted
    try:
        grad_cache_backward(create("align_uniform", anchor="m0"), encode, micro_batches, group=group, modules=modules)
    except BaseException as error:
        return type(error).__name__, str(error)
    return "nothing", ""


@pytest.mark.parametrize(
    ("engine", "trouble", "says"),
    [
        ("ddp-all", "no micro-batch", "process 1 has no micro-batch, so the modules of other processes would wait"),
        ("fsdp-each", "no micro-batch", "process 1 has no micro-batch, so the modules of other processes would wait"),
        ("ddp-each", "other modules", "process 1 passed 2 modules, but process 0 passed 3; pass the same `modules`"),
        ("ddp-each", "left out", "encode called modules[1] (DistributedDataParallel) on process 0, but not on 1"),
    ],
)
def test_calls_that_would_hang_raise_on_every_process(pool: Pool, engine: str, trouble: str, says: str) -> None:
    _, shares = draw_steps()
    for kind, message in pool.run(raised_error, engine, trouble, shares[0], processes=2):
        assert kind == "ConfigError"
        assert says in message


@pytest.mark.parametrize(
    ("trouble", "kind", "says"),
    [
        ("no rows", "ConfigError", "encode returned no embeddings"),
        ("failure", "RuntimeError", "shapes cannot be"),
    ],
)
def test_failure_of_one_encoder_raises_everywhere(pool: Pool, trouble: str, kind: str, says: str) -> None:
    _, shares = draw_steps()
    reported, own = pool.run(raised_error, "ddp-all", trouble, shares[0], processes=2)
    assert own[0] == kind
    assert says in own[1]
    assert reported[0] == (kind if kind == "ConfigError" else "DistributedError")
    # The message contains the rank in the job, not the rank in the group.
    assert reported[1].startswith("process 1 of 4 failed while it encoded its batch: ")
    assert says in reported[1]


def test_interruption_of_one_encoder_raises_everywhere(pool: Pool) -> None:
    """Regression test: after Ctrl-C on one process, the other process waited until the timeout."""
    _, shares = draw_steps()
    assert pool.run(raised_error, "ddp-all", "ctrl-c", shares[0], processes=2) == [("KeyboardInterrupt", "enough")] * 2


# Encoders with an adapter: only its matrices are trained.


def adapted_towers() -> Towers:
    from unialign.config import TuneConfig
    from unialign.encoders import tune_parameters, wrap

    towers = Towers()
    for number, name in enumerate(NAMES):
        module = towers.encoders[name].float()
        encoder = wrap(module, media="array", dim=6, prepare=as_input, name=name, example=torch.zeros(5).numpy())
        tune_parameters(encoder, TuneConfig(mode="lora", r=2, targets=("0", "2")), seed=number)
        module.double()
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                if "lora_B" in key:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return towers


def as_input(value: Any) -> dict[str, Any]:
    return {"input": value}


def trained_gradients(towers: Towers, objective: Objective) -> dict[str, Tensor]:
    gradients = {}
    for name, parameter in towers.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if parameter.requires_grad:
            gradient = parameter.grad
            assert gradient is not None
            gradients[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
        else:
            assert parameter.grad is None
    return gradients


def adapted(rank: int, group: Any, engine: str, batches: list[Batch]) -> dict[str, Tensor]:
    towers, objective = adapted_towers(), new_objective("unialign")
    encode, modules = ENGINES[engine](towers, group)
    micro_batches = split_micro_batches(batches[rank], MICRO_BATCH_SIZES[0][rank])
    out = grad_cache_backward(objective, encode, micro_batches, group=group, modules=modules)
    return {"total": out.total} | trained_gradients(towers, objective)


@pytest.mark.parametrize("engine", ["fsdp-each", "fsdp-all"])
def test_cache_with_adapters(pool: Pool, engine: str) -> None:
    pytest.importorskip("peft")
    wholes, shares = draw_steps()
    towers, objective = adapted_towers(), new_objective("unialign")
    total = objective(towers(wholes[0]), group=None).total
    total.backward()
    expected = {"total": total.detach()} | trained_gradients(towers, objective)
    assert all(bool(gradient.any()) for gradient in expected.values())
    for found in pool.run(adapted, engine, shares[0], processes=2):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert_close(value, expected[name], 1e-9)
