"""Test that losses are finite for every presence mask, and that absent rows have no gradient and no effect."""

from itertools import product

import pytest
import torch
from torch import Tensor

from loss_cases import (
    COMPLETE_ONLY,
    OBJECTIVES,
    draw_batch,
    draw_present,
    fit_modalities,
    make_objective,
    value_and_gradients,
)

PLACEHOLDERS = (float("nan"), float("inf"), 7.0)


def masks(modalities: int) -> list[tuple[bool, ...]]:
    return list(product((False, True), repeat=modalities))


def check(case: str, embeddings: dict[str, Tensor], present: dict[str, Tensor], ids: Tensor | None = None) -> None:
    objective = make_objective(case)
    zeros = {m: torch.where(present[m][:, None], z, 0.0) for m, z in embeddings.items()}
    value, gradients = value_and_gradients(objective, zeros, present=present, ids=ids)
    assert torch.isfinite(value)
    for m in embeddings:
        assert torch.isfinite(gradients[m]).all()
        assert (gradients[m][~present[m]] == 0).all()
    for placeholder in PLACEHOLDERS:
        filled = {m: torch.where(present[m][:, None], z, placeholder) for m, z in embeddings.items()}
        again, gradients_again = value_and_gradients(objective, filled, present=present, ids=ids)
        assert torch.equal(value, again)
        assert all(torch.equal(gradients[m], gradients_again[m]) for m in embeddings)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_a_modality_missing_everywhere(case: str):
    embeddings = draw_batch(1, fit_modalities(case, 4), 3, 5, torch.float32)
    for mask in masks(len(embeddings)):
        check(case, embeddings, {m: torch.full((3,), there) for m, there in zip(embeddings, mask, strict=True)})


@pytest.mark.parametrize("case", OBJECTIVES)
def test_one_item_lacks_modalities(case: str):
    embeddings = draw_batch(2, fit_modalities(case, 3), 3, 5, torch.float32)
    for mask in masks(len(embeddings)):
        present = {m: torch.tensor([True, there, True]) for m, there in zip(embeddings, mask, strict=True)}
        check(case, embeddings, present)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_random_masks(case: str):
    for seed in range(4):
        modalities = fit_modalities(case, 4)
        embeddings, present = draw_batch(seed, modalities, 5, 6, torch.float32), draw_present(seed, modalities, 5)
        check(case, embeddings, present, ids=torch.tensor([0, 1, 1, 2, 0]))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_nothing_present(case: str):
    for items in [0, 1, 4]:
        embeddings = draw_batch(3, fit_modalities(case, 4), items, 5, torch.float32)
        absent = {m: torch.zeros(items, dtype=torch.bool) for m in embeddings}
        value, gradients = value_and_gradients(make_objective(case), embeddings, present=absent)
        assert value == 0
        assert all((gradient == 0).all() for gradient in gradients.values())
        assert make_objective(case)(embeddings, present=absent).terms == {}


WITHOUT = [c for c in OBJECTIVES if c not in ("infonce_matched", "outer_log") and OBJECTIVES[c][0] not in COMPLETE_ONLY]


@pytest.mark.parametrize("case", WITHOUT)
def test_an_absent_modality_equals_a_missing_one(case: str):
    # `infonce_matched` is excluded because its weights are fixed, and `outer_log` because its exponent is M - 1.
    embeddings = draw_batch(4, 4, 5, 6)
    objective = make_objective(case)
    masked = objective(embeddings, present={"m2": torch.zeros(5, dtype=torch.bool)})
    without = objective({m: z for m, z in embeddings.items() if m != "m2"})
    torch.testing.assert_close(masked.total, without.total)
    assert masked.terms.keys() == without.terms.keys()


@pytest.mark.parametrize("case", OBJECTIVES)
def test_an_absent_item_equals_a_missing_one(case: str):
    embeddings = draw_batch(5, fit_modalities(case, 4), 5, 6)
    objective = make_objective(case)
    masked = objective(embeddings, present={m: torch.tensor([True, True, False, True, True]) for m in embeddings})
    without = objective({m: z[[0, 1, 3, 4]] for m, z in embeddings.items()})
    torch.testing.assert_close(masked.total, without.total)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_all_present_is_the_default(case: str):
    embeddings = draw_batch(6, 3, 4, 5)
    objective = make_objective(case)
    expected = objective(embeddings).total
    assert torch.equal(objective(embeddings, present={}).total, expected)
    assert torch.equal(objective(embeddings, present={"m1": torch.ones(4, dtype=torch.bool)}).total, expected)
    assert torch.equal(objective(embeddings, ids=torch.arange(4)).total, expected)
