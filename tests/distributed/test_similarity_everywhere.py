"""Test weights of similar negatives on two, three and four processes against one process."""

from typing import Any

import pytest
import torch
from shards import cut
from torch import Tensor

from loss_cases import draw_batch, draw_ids, draw_present
from processes import Pool
from unialign import errors
from unialign.losses import create

SIZES = {2: (5, 4), 3: (4, 1, 4), 4: (3, 1, 2, 3)}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("unialign", {"preset": "retrieval"}),
    ("unialign", {"preset": "small_batch", "temperature": 0.01}),
    ("unialign", {"anchor": "m1", "partition_mix": 0.5, "similarity_scale": {"m0": 3.0, "m2": 5.0}}),
    ("infonce", {"similarity_scale": 5.0, "temperature": 0.2}),
    ("sigmoid", {"similarity_scale": 5.0}),
]


def call_here(
    rank: int,
    group: Any,
    case: tuple[str, dict[str, Any]],
    batches: list[Any],
    presents: list[Any],
    ids: list[Any],
    features: list[Any],
) -> dict[str, Any]:
    objective = create(case[0], **case[1]).double()
    leaves = {name: x.clone().requires_grad_() for name, x in batches[rank].items()}
    log_scale = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    call = {"present": presents[rank], "ids": ids[rank], "group": group, "similarity": features[rank]}
    out = objective(leaves, logit_scale=log_scale.exp, **call)
    out.total.backward()
    rows = {name: x.grad for name, x in leaves.items()}
    return {"total": out.total.detach(), "scale": log_scale.grad, "rows": rows}


def draw_features(items: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {f"m{m}": torch.randn(items, 3 + m, generator=generator, dtype=torch.float64) for m in range(3)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_one_process(pool: Pool, case: tuple[str, dict[str, Any]]) -> None:
    batch, present, ids, features = draw_batch(3, 3, 9, 6), draw_present(21, 3, 9), draw_ids(7, 9), draw_features(9)
    whole = call_here(0, None, case, [batch], [present], [ids], [features])
    for processes, sizes in SIZES.items():
        own_ids = list(ids.split(list(sizes)))
        parts = pool.run(
            call_here,
            case,
            cut(batch, sizes),
            cut(present, sizes),
            own_ids,
            cut(features, sizes),
            processes=processes,
        )
        for part in parts:
            torch.testing.assert_close(part["total"], whole["total"], rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(part["scale"], whole["scale"], rtol=1e-10, atol=1e-11)
        for name, expected in whole["rows"].items():
            joined = torch.cat([part["rows"][name] for part in parts]) / processes
            torch.testing.assert_close(joined, expected, rtol=1e-9, atol=1e-11)


def test_a_process_without_rows_and_a_process_without_a_modality(pool: Pool) -> None:
    """Features of a modality that only other processes have may have any values."""
    batch, features = draw_batch(3, 3, 6, 6), draw_features(6)
    present = {name: torch.arange(6) < (3 if name == "m1" else 6) for name in batch}
    case = CASES[0]
    whole = call_here(0, None, case, [batch], [present], [None], [features])
    batches = cut(batch, (3, 0, 3))
    batches[1], batches[2] = {}, {name: x for name, x in batches[2].items() if name != "m1"}
    own = cut(features, (3, 0, 3))
    own[2]["m1"] = torch.full_like(own[2]["m1"], torch.nan)
    parts = pool.run(call_here, case, batches, [None] * 3, [None] * 3, own, processes=3)
    for part in parts:
        torch.testing.assert_close(part["total"], whole["total"], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(part["scale"], whole["scale"], rtol=1e-10, atol=1e-11)
    for name, expected in whole["rows"].items():
        for part, wanted in zip((parts[0], parts[2]), expected.split(3), strict=True):
            if name in part["rows"]:
                torch.testing.assert_close(part["rows"][name] / 3, wanted, rtol=1e-9, atol=1e-11)


def raised_error(rank: int, group: Any, batch: Any, features: list[Any]) -> tuple[str, str]:
    try:
        create("infonce", similarity_scale=5.0).double()(batch, group=group, similarity=features[rank])
    except errors.UniAlignError as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def test_different_features_raise_on_every_process(pool: Pool) -> None:
    batch, features = draw_batch(3, 3, 4, 6), draw_features(4)
    fewer = {name: features[name] for name in ("m0", "m1")}
    for kind, message in pool.run(raised_error, batch, [features, fewer], processes=2):
        assert kind == "ConfigError"
        assert "similarity=" in message
    wider = features | {"m1": torch.cat([features["m1"]] * 2, 1)}
    for kind, message in pool.run(raised_error, batch, [features, wider], processes=2):
        assert kind == "ShapeError"
        assert message == "similarity['m1'] has [4, 8] columns on processes 0 to 1"
