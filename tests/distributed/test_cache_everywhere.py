"""Test that the gradient cache on two to four processes gives the result of one process without the cache.

Shapes: `M` modalities, `B` items, `D` dim.
"""

from typing import Any, NamedTuple

import pytest
import torch
from shards import cut, fit_sizes
from torch import Tensor, nn

from loss_cases import OBJECTIVES, draw_batch, draw_ids, draw_present, fit_items, fit_modalities, make_objective
from processes import Pool
from unialign.losses import Objective
from unialign.train import grad_cache_backward

Features = dict[str, Tensor]
VALUE = {torch.float32: 1e-6, torch.float64: 1e-12}
GRADIENT = {torch.float32: 1e-6, torch.float64: 1e-12}
# Rounding errors of float32 are amplified 100 times by a temperature of 0.01, and 10 times by nearly equal singular
# values.
ROUGH_IN_FLOAT32 = {"cua": 2e-5, "pmrl": 1e-5}


class Rows(NamedTuple):
    features: Features
    present: Features | None = None
    ids: Tensor | None = None


class Answer(NamedTuple):
    totals: Tensor
    terms: list[dict[str, Tensor]]
    encoders: Tensor
    objective: Features


def make_encoders(modalities: int, dtype: torch.dtype) -> nn.ModuleDict:
    torch.manual_seed(0)
    made = {f"m{m}": nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6)) for m in range(modalities)}
    return nn.ModuleDict(made).to(dtype)


def make(case: str, dtype: torch.dtype) -> tuple[nn.ModuleDict, Objective]:
    return make_encoders(fit_modalities(case, 3), dtype), make_objective(case).to(dtype)


def answer(encoders: nn.ModuleDict, objective: Objective, totals: list[Tensor], terms: list[Features]) -> Answer:
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in encoders.parameters()]
    own = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    return Answer(torch.stack(totals), terms, torch.cat([g.flatten() for g in found]), own)


def without_cache(case: str, dtype: torch.dtype, batches: list[Rows], weights: list[float]) -> Answer:
    encoders, objective = make(case, dtype)
    outputs = [
        objective({name: encoders[name](x) for name, x in b.features.items()}, present=b.present, ids=b.ids, group=None)
        for b in batches
    ]
    torch.stack([weight * out.total for weight, out in zip(weights, outputs, strict=True)]).sum().backward()
    return answer(encoders, objective, [out.total.detach() for out in outputs], [out.terms for out in outputs])


def with_cache(
    rank: int, group: Any, case: str, dtype: torch.dtype, batches: list[list[Rows]], weights: list[float]
) -> Answer:
    encoders, objective = make(case, dtype)
    outputs = []
    for rows, weight in zip(batches[rank], weights, strict=True):
        outputs.append(
            grad_cache_backward(
                objective,
                lambda part: {name: encoders[name](x) for name, x in part.items()},
                in_micro_batches(rows.features, 3 if rank % 2 else 2),
                present=rows.present,
                ids=rows.ids,
                group=group,
                weight=weight,
            )
        )
    return answer(encoders, objective, [out.total for out in outputs], [out.terms for out in outputs])


def in_micro_batches(features: Features, size: int) -> list[Features]:
    """Split columns into micro-batches; columns with zero rows give one empty micro-batch, and no columns give none."""
    rows = max((len(x) for x in features.values()), default=0)
    parts = [{name: x[at : at + size] for name, x in features.items()} for at in range(0, rows, size)]
    return parts or ([features] if features else [])


def rows_of_each(batch: Rows, sizes: tuple[int, ...]) -> list[Rows]:
    """Split a batch into the rows of each process; a process with zero rows gets no columns."""
    ids = [None] * len(sizes) if batch.ids is None else list(batch.ids.split(list(sizes)))
    rows = zip(cut(batch.features, sizes), cut(batch.present, sizes), ids, sizes, strict=True)
    return [Rows((features or {}) if size else {}, present, own) for features, present, own, size in rows]


def assert_equal_to_one_process(
    pool: Pool, case: str, dtype: torch.dtype, wholes: list[Rows], own: list[list[Rows]], weights: list[float]
) -> None:
    expected = without_cache(case, dtype, wholes, weights)
    assert expected.encoders.norm() > 1e-3
    parts = pool.run(with_cache, case, dtype, own, weights, processes=len(own))
    # Terms of opposite sign may cancel, so the tolerance is relative to the largest term.
    largest = max(1.0, *(abs(float(term)) for terms in expected.terms for term in terms.values()))
    for part in parts:
        assert_near(part.totals, expected.totals, VALUE[dtype] * largest)
        for terms, known in zip(part.terms, expected.terms, strict=True):
            assert terms.keys() == known.keys()
            for name, value in terms.items():
                assert_near(value, known[name], VALUE[dtype])
        assert part.objective.keys() == expected.objective.keys()
    tolerance = max(GRADIENT[dtype], ROUGH_IN_FLOAT32.get(case, 0.0) if dtype == torch.float32 else 0.0)
    mean = torch.stack([part.encoders for part in parts]).mean(0)
    assert (mean - expected.encoders).norm() <= tolerance * expected.encoders.norm()
    for name, gradient in expected.objective.items():
        assert_near(torch.stack([part.objective[name] for part in parts]).mean(0), gradient, tolerance)


def assert_near(value: Tensor, expected: Tensor, tolerance: float) -> None:
    assert value.dtype == expected.dtype
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


cases = pytest.mark.parametrize("case", OBJECTIVES)


def draw(case: str, seed: int, dtype: torch.dtype) -> tuple[Rows, int, int]:
    modalities = fit_modalities(case, 3)
    items = fit_items(case, modalities, 9)
    return Rows(draw_batch(seed, modalities, items, 5, dtype)), modalities, items


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@cases
def test_two_processes_add_up_two_batches(pool: Pool, case: str, dtype: torch.dtype) -> None:
    """The processes have 3 and 2 micro-batches of the first batch, and 2 micro-batches each of the second batch."""
    (first, _, items), (second, _, _) = draw(case, 17, dtype), draw(case, 19, dtype)
    own = zip(
        rows_of_each(first, fit_sizes((5, 4), items)), rows_of_each(second, fit_sizes((3, 6), items)), strict=True
    )
    assert_equal_to_one_process(pool, case, dtype, [first, second], [list(pair) for pair in own], [0.25, 1.5])


@cases
def test_three_processes_of_which_one_has_no_micro_batch(pool: Pool, case: str) -> None:
    batch, modalities, items = draw(case, 23, torch.float64)
    batch = batch._replace(ids=draw_ids(7, items), present=draw_present(21, modalities, items))
    own = rows_of_each(batch, fit_sizes((4, 0, 5), items))
    assert not own[1].features
    assert_equal_to_one_process(pool, case, torch.float64, [batch], [[rows] for rows in own], [1.0])


@cases
def test_four_processes_of_which_one_lacks_a_modality(pool: Pool, case: str) -> None:
    """Process 1 lacks m1, and process 2 has a single micro-batch of zero rows."""
    batch, _, items = draw(case, 29, torch.float64)
    sizes = fit_sizes((3, 4, 0, 2), items)
    present = {name: torch.ones(items, dtype=torch.bool) for name in batch.features}
    present["m1"][sizes[0] : sizes[0] + sizes[1]] = False
    batch = batch._replace(present=present)
    own = rows_of_each(batch, sizes)
    del own[1].features["m1"], own[1].present["m1"]  # type: ignore[union-attr]
    own[2] = Rows({name: x[:0] for name, x in batch.features.items()})
    assert_equal_to_one_process(pool, case, torch.float64, [batch], [[rows] for rows in own], [1.0])
