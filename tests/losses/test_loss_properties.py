"""Test properties of every objective for random shapes, masks and ids, with temperatures at their bounds."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from loss_cases import (
    DRAWN,
    OBJECTIVES,
    draw_batch,
    draw_ids,
    draw_present,
    fit_items,
    fit_modalities,
    make_objective,
    options_of,
    value_and_gradients,
)

BATCHES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31 - 1),
        "modalities": st.integers(2, 5),
        "items": st.integers(0, 8),
        "dim": st.integers(5, 12),
        "masked": st.booleans(),
        "grouped": st.booleans(),
        "bound": st.sampled_from(["default", "low", "high"]),
    }
)
# These bounds apply to fixed temperatures, which have no bounds in the settings.
LOWEST, HIGHEST = 0.01, 1.0


def at_bound(case: str, bound: str) -> dict[str, Any]:
    if bound == "default":
        return {}
    known = options_of(OBJECTIVES[case][0])
    low, high = make_objective(case).get_config().get("temperature_bounds") or (LOWEST, HIGHEST)
    value = low if bound == "low" else high
    return {option: value for option in known if option.endswith("temperature")}


def drawn(case: str, shape: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, Tensor | None]:
    modalities = fit_modalities(case, shape["modalities"])
    items = fit_items(case, modalities, shape["items"])
    embeddings = draw_batch(shape["seed"], modalities, items, shape["dim"])
    present = draw_present(shape["seed"], modalities, items) if shape["masked"] else None
    return embeddings, present, draw_ids(shape["seed"], items) if shape["grouped"] else None


@pytest.mark.parametrize("case", OBJECTIVES)
@settings(max_examples=12)
@given(shape=BATCHES)
def test_finite_and_independent_of_absent_rows(case: str, shape: dict[str, Any]):
    objective = make_objective(case, **at_bound(case, shape["bound"])).double()
    embeddings, present, ids = drawn(case, shape)
    value, gradients = value_and_gradients(objective, embeddings, present=present, ids=ids)
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    for name, term in objective(embeddings, present=present, ids=ids).terms.items():
        assert "contrast" not in name or term >= 0
    if present is None:
        return
    filled = {m: torch.where(present[m][:, None], z, float("nan")) for m, z in embeddings.items()}
    again, gradients_again = value_and_gradients(objective, filled, present=present, ids=ids)
    assert torch.equal(again, value)
    for m, there_B in present.items():
        assert torch.equal(gradients_again[m], gradients[m])
        assert (gradients[m][~there_B] == 0).all()


@pytest.mark.parametrize("case", [case for case in OBJECTIVES if case not in DRAWN])
@settings(max_examples=8)
@given(shape=BATCHES)
def test_the_order_of_items_does_not_matter(case: str, shape: dict[str, Any]):
    objective = make_objective(case, **at_bound(case, shape["bound"])).double()
    embeddings, present, ids = drawn(case, shape)
    items = len(embeddings["m0"])
    order_B = torch.randperm(items, generator=torch.Generator().manual_seed(shape["seed"]))
    value, gradients = value_and_gradients(objective, embeddings, present=present, ids=ids)
    moved, moved_gradients = value_and_gradients(
        objective,
        {m: z[order_B] for m, z in embeddings.items()},
        present=None if present is None else {m: there_B[order_B] for m, there_B in present.items()},
        ids=None if ids is None else ids[order_B],
    )
    torch.testing.assert_close(moved, value, rtol=1e-8, atol=1e-8)
    for m, gradient in gradients.items():
        scale = max(1.0, float(gradient.abs().max())) if items else 1.0
        torch.testing.assert_close(moved_gradients[m] / scale, gradient[order_B] / scale, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", OBJECTIVES)
@settings(max_examples=6)
@given(shape=BATCHES, seed=st.integers(0, 2**31 - 1))
def test_lengths_of_rows_do_not_matter(case: str, shape: dict[str, Any], seed: int):
    objective = make_objective(case, **at_bound(case, shape["bound"])).double()
    embeddings, present, ids = drawn(case, shape)
    generator = torch.Generator().manual_seed(seed)
    stretched = {m: z * torch.exp(torch.randn(len(z), 1, generator=generator).double()) for m, z in embeddings.items()}
    expected = objective(embeddings, present=present, ids=ids).total
    # The root of a volume or area near 0 amplifies the rounding errors of normalized rows.
    torch.testing.assert_close(objective(stretched, present=present, ids=ids).total, expected, rtol=1e-6, atol=1e-6)
