"""Test that losses on two to four processes have the value and gradient of one process with the whole batch.

Shapes: `M` modalities, `B` items, `D` dim.
"""

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from shards import Batch, assert_close, cut, fit_sizes
from torch import Tensor, nn

from loss_cases import (
    OBJECTIVES,
    draw_batch,
    draw_ids,
    draw_present,
    fit_items,
    fit_modalities,
    make_objective,
    options_of,
    with_anchor,
)
from processes import Pool
from unialign import errors
from unialign.distributed._shard import Shard
from unialign.losses import create, names
from unialign.losses._consistency import call_text
from unialign.ops import use_backend

SIZES = {2: (5, 4), 3: (4, 0, 5), 4: (3, 0, 2, 4)}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def gradients_here(
    rank: int, group: Any, case: str, batches: list[Batch], presents: list[Any], ids: list[Any]
) -> dict[str, Any]:
    dtypes = [z.dtype for batch in batches for z in batch.values()]
    objective = make_objective(case).to(torch.promote_types(dtypes[0], dtypes[-1]))
    leaves = {name: z.clone().requires_grad_() for name, z in batches[rank].items()}
    output = objective(leaves, present=presents[rank], ids=ids[rank], group=group)
    output.total.backward()
    return {
        "total": output.total.detach(),
        "terms": output.terms,
        "rows": {name: z.grad for name, z in leaves.items()},
        "parameters": {name: p.grad for name, p in objective.named_parameters()},
    }


def assert_equal_to_one_process(
    pool: Pool,
    case: str,
    sizes: tuple[int, ...],
    batch: Batch,
    *,
    present: Batch | None = None,
    ids: Tensor | None = None,
    local_batches: list[Batch] | None = None,
) -> None:
    processes = len(sizes)
    tolerance = TOLERANCE[next(iter(batch.values())).dtype]
    whole = gradients_here(0, None, case, [batch], [present], [ids])
    brought = local_batches or cut(batch, sizes)
    own_ids = [None] * processes if ids is None else list(ids.split(list(sizes)))
    presents = cut(present, sizes)
    if local_batches is not None:
        presents = [
            None if p is None else {name: x for name, x in p.items() if name in part}
            for p, part in zip(presents, local_batches, strict=True)
        ]
    parts = pool.run(gradients_here, case, brought, presents, own_ids, processes=processes)
    for part in parts:
        assert_close(part["total"], whole["total"], tolerance)
        assert part["terms"].keys() == whole["terms"].keys()
        for name, value in part["terms"].items():
            assert_close(value, whole["terms"][name], tolerance)
    assert any(bool(gradient.any()) for gradient in whole["rows"].values())  # At least one gradient is not zero.
    differences, lengths = [], []
    for name in batch:
        for part, expected in zip(parts, whole["rows"][name].split(list(sizes)), strict=True):
            # The rows of a modality that the process lacks are absent and have no gradient.
            own = part["rows"].get(name, torch.zeros_like(expected))
            differences.append((own / processes - expected).norm())
            lengths.append(expected.norm())
    # The error is relative to the norm of the whole gradient, or to 1 if the norm is smaller.
    if case == "cua" and tolerance == TOLERANCE[torch.float32]:
        # A temperature of 0.01 amplifies rounding errors of cosines; even on one process, the float32 error is 6e-6.
        tolerance = 2e-6
    assert torch.stack(differences).norm() <= tolerance * max(1.0, torch.stack(lengths).norm())
    for name, gradient in whole["parameters"].items():
        for part in parts if gradient is not None else ():
            assert_close(part["parameters"][name], gradient, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", OBJECTIVES)
def test_objective_equals_one_process(pool: Pool, case: str, dtype: torch.dtype) -> None:
    """With three processes, items have ids and one process has no rows; with four, some rows are absent."""
    modalities = fit_modalities(case, 3)
    items = fit_items(case, modalities, 9)
    batch = draw_batch(3, modalities, items, 6, dtype)
    for processes, sizes in SIZES.items():
        present = draw_present(21, modalities, items) if processes == 4 else None
        ids = draw_ids(7, items) if processes == 3 else None
        assert_equal_to_one_process(pool, case, fit_sizes(sizes, items), batch, present=present, ids=ids)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_process_without_a_modality_and_one_without_any(pool: Pool, case: str) -> None:
    modalities = fit_modalities(case, 3)
    items = fit_items(case, modalities, 9)
    sizes = fit_sizes((3, 4, 0, 2), items)
    batch = draw_batch(11, modalities, items, 6)
    present = {name: torch.ones(items, dtype=torch.bool) for name in batch}
    present["m1"][sizes[0] : sizes[0] + sizes[1]] = False
    local_batches: list[Any] = cut(batch, sizes)
    del local_batches[1]["m1"]
    local_batches[2] = {}
    assert_equal_to_one_process(pool, case, sizes, batch, present=present, local_batches=local_batches)


def learning(name: str) -> dict[str, Any]:
    """Return options that make all scalars of an objective learnable, or {} if the objective has no such option."""
    known = options_of(name)
    modes = {option: "learnable" for option in ("mode", "temperature_mode") if option in known}
    return with_anchor(name) | modes if modes else {}


LEARNING = [name for name in names() if learning(name)]
SMOOTHED = [name for name in LEARNING if "label_smoothing" in options_of(name)]


@pytest.mark.parametrize(
    ("name", "smoothing"), [(name, None) for name in LEARNING] + [(name, 0.2) for name in SMOOTHED]
)
def test_gradient_of_a_number_is_whole_on_every_process(pool: Pool, name: str, smoothing: float | None) -> None:
    """Every process must have the gradient of the whole batch, or the temperatures of the processes would diverge."""
    options = learning(name) | ({} if smoothing is None else {"label_smoothing": smoothing})
    batch, ids = draw_batch(17, 3, 9, 6), draw_ids(19, 9)
    whole = gradients_of_numbers(0, None, name, options, [batch], [ids])
    assert whole
    for sizes in ((6, 3), (2, 6, 1)):
        own_ids = list(ids.split(list(sizes)))
        parts = pool.run(gradients_of_numbers, name, options, cut(batch, sizes), own_ids, processes=len(sizes))
        for part in parts:
            assert part.keys() == whole.keys()
            for parameter, gradient in part.items():
                torch.testing.assert_close(gradient, whole[parameter], rtol=1e-12, atol=1e-12)
                assert torch.equal(gradient, parts[0][parameter])


def gradients_of_numbers(
    rank: int, group: Any, name: str, options: dict[str, Any], batches: list[Batch], ids: list[Any]
) -> dict[str, Tensor]:
    objective = create(name, **options).double().eval()
    leaves = {modality: z.clone().requires_grad_() for modality, z in batches[rank].items()}
    objective(leaves, ids=ids[rank], group=group).total.backward()
    return {parameter: p.grad.clone() for parameter, p in objective.named_parameters()}


def encoders() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {f"m{m}": nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6)) for m in range(3)}
    ).double()


class Tower(nn.Module):
    def __init__(self, case: str) -> None:
        super().__init__()
        self.encoders, self.objective = encoders(), make_objective(case).double()

    def forward(self, features: Batch) -> Tensor:
        return self.objective({name: self.encoders[name](x) for name, x in features.items()}).total


def parameter_gradients(rank: int, group: Any, case: str, engine: str, features: list[Batch]) -> dict[str, Tensor]:
    tower: nn.Module = Tower(case)
    if engine == "ddp":
        tower = nn.parallel.DistributedDataParallel(tower)
    elif engine == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for encoder in tower.encoders.values():
            fully_shard(encoder, mesh=mesh)
    tower(features[rank]).backward()
    gradients = {}
    for name, parameter in tower.named_parameters():
        if parameter.grad is not None:
            whole = parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
            if engine == "fsdp" and name.startswith("objective."):  # FSDP does not accept scalar parameters.
                dist.all_reduce(whole)
                whole = whole / dist.get_world_size()
            gradients[name.removeprefix("module.")] = whole.detach().clone()
    return gradients


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", ["balanced", "infonce-all", "sigmoid", "cs_aligner"])
def test_engines_average_to_the_gradient_of_one_process(pool: Pool, case: str, engine: str) -> None:
    features = draw_batch(13, 3, 9, 5)
    whole = parameter_gradients(0, None, case, "none", [features])
    for part in pool.run(parameter_gradients, case, engine, cut(features, SIZES[4])):
        assert part.keys() == whole.keys()
        for name, gradient in part.items():
            assert_close(gradient, whole[name], 1e-12)


# The following tests check errors.


def raised_error(rank: int, group: Any, batches: list[Any], presents: list[Any], ids: list[Any]) -> tuple[str, str]:
    try:
        create("infonce", anchor="all")(batches[rank], present=presents[rank], ids=ids[rank], group=group)
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def raised_errors(pool: Pool, batches: list[Any], ids: list[Any] | None = None) -> list[tuple[str, str]]:
    nothing = [None] * len(batches)
    return pool.run(raised_error, batches, nothing, ids or nothing, processes=len(batches))


def test_bad_rows_of_one_process_are_an_error_on_all(pool: Pool) -> None:
    batches: Any = cut(draw_batch(1, 3, 9, 6), SIZES[2])
    batches[1]["m2"][2, 4] = torch.nan
    first, second = raised_errors(pool, batches)
    assert second[0] == first[0] == errors.NonFiniteError.__name__
    assert second[1].startswith("'m2' row 2")
    assert first[1].startswith("process 1 of 2 rejected its batch: 'm2' row 2")


def test_unexpected_error_of_one_process_is_an_error_on_all(pool: Pool) -> None:
    with_error = raised_errors(pool, [draw_batch(1, 2, 3, 6), {"m0": "a text", "m1": 3}])
    assert with_error[0][1].startswith("process 1 of 2 rejected its batch")


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda b: {name: z[:, :4] for name, z in b.items()}, "ShapeError", "process 1 of 2 has embeddings of dim 4"),
        (lambda b: [1, 2], "ShapeError", "must be a mapping"),
        (lambda b: {"m0": b["m0"], "m1": b["m1"][:1]}, "ShapeError", "'m1' has 1 rows"),
    ],
    ids=["dim", "no mapping", "rows"],
)
def test_batches_that_do_not_fit(pool: Pool, change: Any, kind: str, says: str) -> None:
    batch = draw_batch(1, 2, 3, 6)
    for raised, message in raised_errors(pool, [batch, change(batch)]):
        assert raised == kind
        assert says in message


def test_ids_on_one_process_only_raise_on_all(pool: Pool) -> None:
    """If missing ids were treated as distinct ids, rows with the same id would become negatives."""
    batch = draw_batch(1, 2, 3, 6)
    for raised, message in raised_errors(pool, [batch, batch], ids=[torch.arange(3), None]):
        assert raised == "ConfigError"
        assert "ids were given on process 0 of 2, but not on 1" in message


def test_process_without_rows_needs_no_ids(pool: Pool) -> None:
    batch = draw_batch(1, 2, 3, 6)
    nothing = {name: z[:0] for name, z in batch.items()}
    assert raised_errors(pool, [batch, nothing], ids=[torch.arange(3), None]) == [("nothing", "")] * 2


def test_one_modality_everywhere_raises(pool: Pool) -> None:
    batch = draw_batch(1, 1, 3, 6)
    for raised, message in raised_errors(pool, [batch, {}]):
        assert raised == "ShapeError"
        assert "at least 2 modalities across all processes" in message


def test_dtypes_and_orders_may_differ(pool: Pool) -> None:
    """A float64 batch on one process promotes all batches; the process with the most modalities sets the order."""
    batch = draw_batch(1, 3, 6, 6, torch.float32)
    first, second = cut({name: z.double() for name, z in batch.items()}, (3, 3))
    assert first is not None
    assert second is not None
    parts: Any = [{name: first[name].float() for name in ("m2", "m0")}, {name: second[name] for name in batch}]
    expected = {name: z.double() for name, z in batch.items()}
    present = {"m1": torch.tensor([False] * 3 + [True] * 3)}
    whole = gradients_here(0, None, "infonce-all", [expected], [present], [None])
    for part in pool.run(gradients_here, "infonce-all", parts, [None] * 2, [None] * 2, processes=2):
        assert part["total"].dtype == torch.float64
        assert list(part["terms"]) == list(whole["terms"])
        assert_close(part["total"], whole["total"], 1e-6)  # The tolerance covers the rounding of the float32 rows.


def calling(
    rank: int, group: Any, calls: list[tuple[str, dict[str, Any]]], modes: list[str], batches: list[Any]
) -> tuple[str, str]:
    """Call a loss in the mode `grad`, `no_grad`, `frozen` (parameters require no gradient) or `reference` (backend)."""
    name, options = calls[rank]
    mode = modes[rank]
    objective = create(name, **options)
    if mode == "frozen":
        objective.requires_grad_(False)
    try:
        with torch.set_grad_enabled(mode != "no_grad"), use_backend("reference" if mode == "reference" else "auto"):
            total = objective(batches[rank], group=group).total
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", "with gradients" if total.requires_grad else "without"


INFONCE = ("infonce", {"anchor": "m0", "temperature_mode": "learnable"})
WARMER = ("infonce", {"anchor": "m0", "temperature_mode": "learnable", "temperature": 0.2})


@pytest.mark.parametrize(
    ("calls", "modes", "says"),
    [
        (
            [INFONCE, ("unialign", {"anchor": "m0"}), INFONCE],
            ["grad"] * 3,
            "processes 0, 2 of 3 call infonce; process 1 of 3 calls unialign.",
        ),
        (
            [INFONCE, INFONCE, WARMER],
            ["grad"] * 3,
            "processes 0, 1 of 3 call infonce(temperature=0.07); process 2 of 3 calls infonce(temperature=0.2).",
        ),
        (
            [INFONCE] * 3,
            ["grad", "grad", "no_grad"],
            "processes 0, 1 of 3 call infonce with gradients; "
            "process 2 of 3 calls infonce without gradients (torch.no_grad).",
        ),
        (
            [INFONCE] * 3,
            ["grad", "frozen", "grad"],
            "processes 0, 2 of 3 call infonce learning temperature.shift; "
            "process 1 of 3 calls infonce learning no parameter.",
        ),
        (
            [INFONCE] * 3,
            ["reference", "grad", "grad"],
            "process 0 of 3 calls infonce with the backend 'reference'; "
            "processes 1, 2 of 3 call infonce with the backend 'auto'.",
        ),
    ],
    ids=["objectives", "settings", "no_grad", "frozen", "kernels"],
)
def test_different_calls_raise(pool: Pool, calls: Any, modes: list[str], says: str) -> None:
    """Calls of different losses, settings or modes in one step, even on a process without rows, must not hang."""
    batch = draw_batch(1, 3, 6, 6)
    batches = [*cut(batch, (4, 2)), {name: z[:0] for name, z in batch.items()}]
    for kind, message in pool.run(calling, calls, modes, batches, processes=3):
        assert kind == "ConfigError"
        assert says in message
    assert {kind for kind, _ in pool.run(calling, [INFONCE] * 3, ["grad"] * 3, batches, processes=3)} == {"nothing"}


@pytest.mark.parametrize("nothing", ["no rows", "no modality"])
@pytest.mark.parametrize("mode", ["grad", "no_grad"])
def test_process_without_rows_joins_the_call(pool: Pool, nothing: str, mode: str) -> None:
    batch = draw_batch(1, 3, 6, 6)
    empty = {} if nothing == "no modality" else {name: z[:0] for name, z in batch.items()}
    reported = pool.run(calling, [INFONCE] * 2, [mode] * 2, [batch, empty], processes=2)
    assert reported == [("nothing", "with gradients" if mode == "grad" else "without")] * 2


def drawing(rank: int, group: Any, batch: Batch) -> str:
    objective = create("symile").train()
    objective(batch, group=group)
    if rank == 1:
        objective.eval()
    with pytest.raises(errors.ConfigError) as caught:
        objective(batch, group=group)
    return str(caught.value)


def test_different_draws_raise(pool: Pool) -> None:
    """Symile draws different negatives in training mode and in eval mode."""
    for said in pool.run(drawing, draw_batch(1, 3, 4, 6), processes=2):
        assert "process 0 of 2 calls symile at draw 1; process 1 of 2 calls symile at draw 0" in said


def calling_with_triton(rank: int, group: Any, device: str, mode: str, batch: Batch) -> tuple[str, str]:
    """Call a loss with Triton available only on process 1 and used for tensors on `device`."""
    from unialign.losses import _consistency

    with (
        mock.patch.object(_consistency, "has_triton", return_value=rank == 1),
        mock.patch.object(_consistency, "_TRITON_DEVICE", device),
    ):
        return calling(rank, group, [INFONCE] * 2, [mode] * 2, [batch] * 2)


def test_triton_on_one_process_only_raises(pool: Pool) -> None:
    """Processes with and without Triton run different collectives; the test replaces CUDA by the CPU."""
    batch = draw_batch(1, 3, 4, 6)
    for kind, message in pool.run(calling_with_triton, "cpu", "grad", batch, processes=2):
        assert kind == "ConfigError"
        assert "the backend 'auto' is Triton on process 1 of 2, but not on 0" in message
    # Triton is not used on other devices or if another backend is selected.
    for device, mode in (("cuda", "grad"), ("cpu", "reference")):
        reported = pool.run(calling_with_triton, device, mode, batch, processes=2)
        assert reported == [("nothing", "with gradients")] * 2


def test_settings_without_json_are_compared_by_type() -> None:
    """The default repr contains a memory address, which differs between processes."""
    text = call_text("own", {"kernel": object()}, gradients=True, parameters=[], draw=0)
    assert text == call_text("own", {"kernel": object()}, gradients=True, parameters=[], draw=0)


def test_group_none_uses_one_process(pool: Pool) -> None:
    batches: Any = cut(draw_batch(1, 3, 9, 6), SIZES[2])
    parts = pool.run(alone, batches, processes=2)
    for batch, part in zip(batches, parts, strict=True):
        assert torch.equal(part, make_objective("infonce")(batch).total)


def alone(rank: int, group: Any, batches: list[Batch]) -> Tensor:
    return make_objective("infonce")(batches[rank], group=None).total


def waiting(rank: int, group: Any, batch: Batch) -> str:
    """Run a job in which process 1 never calls the loss."""
    brief = dist.new_group([0, 1], timeout=timedelta(seconds=1))
    if rank != 0:
        return ""
    with pytest.raises(errors.DistributedError) as caught:
        make_objective("infonce")(batch, group=brief)
    return str(caught.value)


def test_missing_process_raises_with_advice(pool: Pool) -> None:
    """This occurs, for example, if an evaluation runs only on the first process."""
    said = pool.run(waiting, draw_batch(1, 3, 4, 6))[0]
    assert said.startswith("process 0 of 2 lost connection")
    assert "pass `group=None`" in said


def stranger(rank: int, group: Any, batch: Batch) -> str:
    first = dist.new_group([0, 1])
    if rank < 2:
        return ""
    with pytest.raises(errors.ConfigError) as caught:
        make_objective("infonce")(batch, group=first)
    return str(caught.value)


def test_group_without_this_process_raises(pool: Pool) -> None:
    assert all("group" in said for said in pool.run(stranger, draw_batch(1, 3, 4, 6))[2:])


def second_derivative(rank: int, group: Any, batch: Batch) -> str:
    leaves = {name: z.clone().requires_grad_() for name, z in batch.items()}
    total = create("unialign", anchor="m0", uniformity_weight=0.0)(leaves, group=group).total
    first = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
    length = torch.stack([g.square().sum() for g in first]).sum()
    with pytest.raises(errors.ConfigError) as caught:
        torch.autograd.grad(length, list(leaves.values()))
    return str(caught.value)


def test_second_derivatives_raise(pool: Pool) -> None:
    """Second derivatives would lack the contributions of the rows of other processes."""
    for said in pool.run(second_derivative, draw_batch(1, 3, 4, 6), processes=2):
        assert "on several processes has no second derivative" in said


def test_unknown_group_raises(pool: Pool) -> None:
    with pytest.raises(errors.ConfigError, match="group must be 'auto', None or"):
        make_objective("infonce")(draw_batch(1, 2, 3, 6), group="all")


def collectives(rank: int, group: Any, batches: list[Any], presents: list[Any], ids: list[Any]) -> list[str]:
    called: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(dist, name)

        def call(*arguments: Any, **options: Any) -> Any:
            called.append(name)
            return real(*arguments, **options)

        return mock.patch.object(dist, name, call)

    objective = create("unialign", anchor="m0", uniformity_weight=0.0)
    leaves = {name: z.clone().requires_grad_() for name, z in batches[rank].items()}
    kinds = ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "broadcast", "reduce_scatter")
    patches = [counted(kind) for kind in kinds]
    for patch in patches:
        patch.start()
    objective(leaves, present=presents[rank], ids=ids[rank], group=group).total.backward()
    for patch in patches:
        patch.stop()
    return called


def test_number_of_collectives(pool: Pool) -> None:
    """The header and the rows take one collective each; ids, and modalities that differ, take one more each."""
    batches: Any = cut(draw_batch(1, 3, 9, 6), SIZES[2])
    presents = cut(draw_present(21, 3, 9), SIZES[2])
    ids = list(torch.arange(9).split([5, 4]))
    nothing = [None, None]
    assert pool.run(collectives, batches, nothing, nothing, processes=2) == [["all_gather"] * 2] * 2
    assert pool.run(collectives, batches, presents, nothing, processes=2) == [["all_gather"] * 2] * 2
    assert pool.run(collectives, batches, nothing, ids, processes=2) == [["all_gather"] * 3] * 2
    del batches[1]["m2"]
    with_names = ["all_gather", "all_gather_object", "all_gather"]
    assert pool.run(collectives, batches, nothing, nothing, processes=2) == [with_names] * 2


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64, torch.bfloat16])
def test_rows_of_any_dtype_are_gathered(pool: Pool, dtype: torch.dtype) -> None:
    whole = (torch.arange(18).reshape(9, 2) % 3).to(dtype)
    for rows in pool.run(gathered, list(whole.split(list(SIZES[3]))), processes=3):
        assert torch.equal(rows, whole)
    nothing = pool.run(gathered, [whole[:0]] * 3, processes=3)
    assert all(rows.shape == (0, 2) for rows in nothing)


def gathered(rank: int, group: Any, parts: list[Tensor]) -> Tensor:
    return Shard(tuple(len(part) for part in parts), rank, group).gather_rows(parts[rank])
