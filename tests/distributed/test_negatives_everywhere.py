"""Test scales, negatives, queues and zero rows in calls on two, three and four processes against one process.

Shapes: `B` items, `D` dim, `K` negatives per item.
"""

from typing import Any

import pytest
import torch
from shards import cut
from torch import Tensor

from loss_cases import draw_batch, draw_ids, draw_present, make_objective
from processes import Pool
from unialign import errors
from unialign.losses import InfoNCE, MemoryQueue
from unialign.train import grad_cache_backward

SIZES = {2: (5, 4), 3: (4, 0, 5), 4: (3, 1, 2, 3)}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"direction": "forward", "label_smoothing": 0.1},
    {"same_ids": "positive", "hardness": 2.0},
]


def call_here(
    rank: int,
    group: Any,
    options: dict[str, Any],
    batches: list[Any],
    presents: list[Any],
    ids: list[Any],
    negatives: list[Any],
    pushes: list[Any],
    cached: bool,
) -> dict[str, Any]:
    loss, queue = InfoNCE("m0", temperature=0.3, **options), MemoryQueue(7)
    log_scale = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    for rows, own_ids in pushes[rank]:
        queue.push(rows, ids=own_ids, group=group)
    leaves, given = (
        {name: x.clone().requires_grad_() for name, x in values[rank].items()} for values in (batches, negatives)
    )
    call: dict[str, Any] = {
        "present": presents[rank],
        "ids": ids[rank],
        "group": group,
        "negatives": given or None,
        "queue": queue,
        "logit_scale": log_scale.exp,
    }
    if cached:
        # The micro-batches differ in size, since 2 does not divide the number of rows.
        parts = list(zip(*(x.split(2) for x in leaves.values()), strict=True))
        out = grad_cache_backward(loss, lambda part: dict(zip(leaves, part, strict=True)), parts, **call)
    else:
        out = loss(leaves, **call)
        out.total.backward()
    stored = {name: queue.stored(name) for name in queue.modalities}
    gradients = {"rows": leaves, "negatives": given}
    found = {kind: {name: x.grad for name, x in values.items()} for kind, values in gradients.items()}
    return {"total": out.total.detach(), "scale": log_scale.grad, "stored": stored, **found}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cached", [False, True], ids=["whole", "cached"])
def test_negatives_and_scale_equal_one_process(pool: Pool, options: dict[str, Any], cached: bool) -> None:
    batch, present, ids = draw_batch(3, 3, 9, 6), draw_present(21, 3, 9), draw_ids(7, 9)
    own, shared = draw(1, 9, 2, 6), draw(2, 5, 6)
    pushed, pushed_ids = {"m1": draw(4, 9, 6), "m2": draw(5, 9, 6)}, draw_ids(8, 9)
    whole = call_here(
        0,
        None,
        options,
        [batch],
        [present],
        [ids],
        [{"m1": own, "m2": shared}],
        [[(pushed, pushed_ids)]],
        False,
    )
    for processes, sizes in SIZES.items():
        parts_of_shared = [shared[:3], shared[3:], *[shared[:0]] * 2][:processes]
        negatives = [{"m1": x, "m2": y} for x, y in zip(own.split(list(sizes)), parts_of_shared, strict=True)]
        pushes = [[(rows, x)] for rows, x in zip(cut(pushed, sizes), pushed_ids.split(list(sizes)), strict=True)]
        batches, presents, own_ids = cut(batch, sizes), cut(present, sizes), list(ids.split(list(sizes)))
        for rank in range(processes) if 0 in sizes else ():
            if sizes[rank] == 0:  # This process has no modality.
                batches[rank], presents[rank], own_ids[rank], pushes[rank] = {}, None, None, [({}, None)]
        parts = pool.run(
            call_here,
            options,
            batches,
            presents,
            own_ids,
            negatives,
            pushes,
            cached and 0 not in sizes,
            processes=processes,
        )
        for part in parts:
            torch.testing.assert_close(part["total"], whole["total"], rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(part["scale"], whole["scale"], rtol=1e-10, atol=1e-11)
            assert torch.equal(part["stored"]["m1"][0], whole["stored"]["m1"][0])
        for kind in ("rows", "negatives"):
            for name, expected in whole[kind].items():
                joined = torch.cat([part[kind][name] for part in parts if name in part[kind]]) / processes
                torch.testing.assert_close(joined, expected, rtol=1e-9, atol=1e-11)


def scale_gradient(rank: int, group: Any, case: str, batches: list[Any], call: dict[str, float]) -> dict[str, Tensor]:
    objective = make_objective(case).double()
    numbers = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in call.items()}
    leaves = {name: z.clone().requires_grad_() for name, z in batches[rank].items()}
    objective(leaves, group=group, **numbers).total.backward()
    return {name: x.grad for name, x in numbers.items()}


@pytest.mark.parametrize(
    "case",
    ["infonce", "sigmoid", "gram", "triangle", "symile-sampled", "cs_aligner", "modgap", "paper", "mix", "outer_log"],
)
def test_each_process_has_the_whole_gradient_of_a_scale(pool: Pool, case: str) -> None:
    batch = draw_batch(5, 3, 9, 6)
    call = {"logit_scale": 3.0} | ({"logit_bias": -2.0} if case == "sigmoid" else {})
    whole = scale_gradient(0, None, case, [batch], call)
    for part in pool.run(scale_gradient, case, cut(batch, SIZES[3]), call, processes=3):
        torch.testing.assert_close(part, whole, rtol=1e-10, atol=1e-12)


def zero_rows_total(rank: int, group: Any, batches: list[Any]) -> Tensor:
    return make_objective("infonce").double()(batches[rank], group=group, zero_rows="ignore").total


def test_zero_rows_of_one_process_are_absent(pool: Pool) -> None:
    batch = draw_batch(5, 3, 9, 6)
    batch["m1"][7] = 0.0
    expected = zero_rows_total(0, None, [batch])
    for total in pool.run(zero_rows_total, cut(batch, SIZES[2]), processes=2):
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def raised_error(rank: int, group: Any, batch: Any, calls: list[dict[str, Any]]) -> tuple[str, str]:
    try:
        InfoNCE("m0")(batch, group=group, **calls[rank])
    except errors.UniAlignError as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def test_errors_are_raised_on_every_process(pool: Pool) -> None:
    """Invalid or differing arguments on one process must raise an error on all, or the others would wait."""
    batch, rows = draw_batch(5, 3, 4, 6), draw(1, 4, 2, 6)
    for calls, kind, message in (
        ([{}, {"negatives": {"m1": rows[:, :, :3]}}], "ConfigError|ShapeError", "negatives"),
        ([{"temperature": 0.1}, {"temperature": 0.2}], "ConfigError", "temperature=0.2"),
        ([{}, {"logit_scale": -1.0}], "ConfigError", "logit_scale must be"),
        ([{}, {"negatives": {"m1": rows}}], "ConfigError", "with no further arguments"),
        ([{"negatives": {"m1": rows}}, {"negatives": {"m1": rows[0]}}], "ConfigError", "'m1' of 2 dimensions"),
        ([{"negatives": {"m5": rows[0]}}] * 2, "ConfigError", "which is not a modality"),
        ([{}, {"logit_bias": 1.0}], "ConfigError", "infonce does not support logit_bias="),
    ):
        for raised, said in pool.run(raised_error, batch, calls, processes=2):
            assert raised in kind.split("|")
            assert message in said
