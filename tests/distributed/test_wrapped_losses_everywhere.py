"""Test that Matryoshka and fused targets on several processes have the value and gradient of one process.

Shapes: `B` items, `n` items of a process, `D` dim.
"""

from typing import Any

import pytest
import torch
from shards import assert_close, cut
from torch import Tensor

from loss_cases import draw_batch, draw_ids, draw_present
from processes import Pool
from unialign.errors import NonFiniteError, UniAlignError
from unialign.losses import FusedTarget, Matryoshka, Objective

LEARNED = {"temperature_mode": "learnable"}
CASES: dict[str, Any] = {
    "prefixes of infonce": lambda: Matryoshka("infonce", (3, 6), (0.5, 1.0), objective_options=LEARNED),
    "prefixes of unialign": lambda: Matryoshka("unialign", (3, 6)),
    "prefixes of gram": lambda: Matryoshka("gram", (5, 6), objective_options={"anchor": "m0"}),
    "others": lambda: FusedTarget("infonce", objective_options=LEARNED),
    "subsets": lambda: FusedTarget("unialign", subsets="all"),
    "alignment": lambda: FusedTarget("infonce", form="alignment", objective_options=LEARNED),
    "prefixes of others": lambda: Matryoshka(FusedTarget("unialign"), (4, 6)),
}
SIZES = {3: (4, 0, 5), 4: (3, 0, 2, 4)}


def measured(
    rank: int, group: Any, case: str, batches: list[Any], presents: list[Any], ids: list[Any], call: dict[str, Any]
) -> dict[str, Any]:
    objective: Objective = CASES[case]().double()
    leaves = {name: z.clone().requires_grad_() for name, z in batches[rank].items()}
    output = objective(leaves, present=presents[rank], ids=ids[rank], group=group, **call)
    output.total.backward()
    return {
        "total": output.total.detach(),
        "terms": output.terms,
        "rows": {name: z.grad for name, z in leaves.items()},
        "parameters": {name: p.grad for name, p in objective.named_parameters()},
    }


def assert_equal_to_one_process(pool: Pool, case: str, processes: int, batch: dict[str, Tensor], **call: Any) -> None:
    sizes = SIZES[processes]
    present = draw_present(21, len(batch), 9) if processes == 4 else None
    ids = draw_ids(7, 9) if processes == 3 else None
    whole = measured(0, None, case, [batch], [present], [ids], call)
    own_ids = [None] * processes if ids is None else list(ids.split(list(sizes)))
    parts = pool.run(measured, case, cut(batch, sizes), cut(present, sizes), own_ids, call, processes=processes)
    for rank, part in enumerate(parts):
        assert_close(part["total"], whole["total"], 1e-12)
        assert part["terms"].keys() == whole["terms"].keys()
        for name, gradient in whole["rows"].items():
            own = gradient.split(list(sizes))[rank]
            torch.testing.assert_close(part["rows"][name] / processes, own, rtol=1e-9, atol=1e-12)
        for name, gradient in whole["parameters"].items():
            torch.testing.assert_close(part["parameters"][name], gradient, rtol=1e-9, atol=1e-12)
    assert any(bool(gradient.any()) for gradient in whole["rows"].values())


@pytest.mark.parametrize("processes", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_those_of_one_process(pool: Pool, case: str, processes: int) -> None:
    assert_equal_to_one_process(pool, case, processes, draw_batch(3, 3, 9, 6))


def test_prefixes_of_norm_zero(pool: Pool) -> None:
    """Rows without a prefix are absent with `ignore`, and otherwise raise the same error on every process."""
    batch = draw_batch(5, 3, 9, 6)
    batch["m1"][7, :3] = 0.0
    assert_equal_to_one_process(pool, "prefixes of infonce", 3, batch, zero_rows="ignore")
    messages = pool.run(message_of, cut(batch, SIZES[3]), processes=3)
    assert messages == ["'m1' row 7 is 0 in its first 3 dimensions"] * 3


def message_of(rank: int, group: Any, batches: list[Any]) -> str:
    try:
        Matryoshka("infonce", (3, 6))(batches[rank], group=group)
    except NonFiniteError as error:
        return str(error).partition(",")[0]
    return "no error"


def different_prefixes(rank: int, group: Any, batches: list[Any]) -> str:
    try:
        Matryoshka("infonce", (3 + rank, 6))(batches[rank], group=group)
    except UniAlignError as error:
        return str(error)
    return "no error"


def test_different_prefixes_raise_on_every_process(pool: Pool) -> None:
    for message in pool.run(different_prefixes, cut(draw_batch(6, 2, 9, 6), (4, 5)), processes=2):
        assert "processes call different losses" in message
        assert "dims=[3, 6]" in message
