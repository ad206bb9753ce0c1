"""Test that the bytes saved for the backward pass grow linearly with the batch size."""

import pytest

from benchmarks.saved_bytes import saved_bytes
from loss_cases import OBJECTIVES, draw_batch, draw_ids, draw_present, fit_modalities, make_objective

# `symile` is excluded, since `negatives="all"` compares all M-tuples of items.
LINEAR = [case for case in OBJECTIVES if case != "symile"]


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize("rows", ["all", "some"])
def test_saved_bytes_grow_linearly(case: str, rows: str):
    objective, modalities = make_objective(case), fit_modalities(case, 3)
    kept = []
    for items in (256, 512, 1024):
        leaves = {m: z.float().requires_grad_() for m, z in draw_batch(1, modalities, items, 8).items()}
        options = {}
        if rows == "some":
            options = {"present": draw_present(2, modalities, items), "ids": draw_ids(3, items)}
        kept.append(saved_bytes(lambda leaves=leaves, options=options: objective(leaves, **options).total))
    # Allow a tolerance of 5 %, since the number of absent rows is random.
    assert kept[1] <= 2.1 * kept[0]
    assert kept[2] <= 2.1 * kept[1]
    assert kept[2] < 1024 * 1024 * 4
