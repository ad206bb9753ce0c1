"""The gradient cache on two, three and four processes equals one process with the whole batch and no cache.

A cache and a batch on many processes each rebuild a gradient from parts, and a mistake in how they meet (a factor of
the processes, rows of a piece taken for rows of the batch, a process that skips a turn) is a plausible number. Here
processes have different numbers of rows and of pieces; one has no piece, one a piece of zero rows, one no rows of a
modality.

Legend: `M` modalities, `B` items, `D` width.
"""

from typing import Any, NamedTuple

import pytest
import torch
from loss_cases import OBJECTIVES, draw_batch, draw_ids, draw_present, fit_items, fit_modalities, make_objective
from processes import Pool
from test_losses_everywhere import cut, fit_sizes
from torch import Tensor, nn

from unialign.losses import Objective
from unialign.train import grad_cache_backward

Features = dict[str, Tensor]
VALUE = {torch.float32: 1e-6, torch.float64: 1e-12}
GRADIENT = {torch.float32: 1e-6, torch.float64: 1e-12}
# A temperature of 0.01 multiplies the rounding of a float32 cosine by 100; nearly equal singular values theirs by 10.
ROUGH_IN_FLOAT32 = {"cua": 2e-5, "pmrl": 1e-5}


class Share(NamedTuple):
    """A batch, or what one process has of it."""

    features: Features
    present: Features | None = None
    ids: Tensor | None = None


class Answer(NamedTuple):
    totals: Tensor
    terms: list[dict[str, Tensor]]
    encoders: Tensor  # the gradient by all their parameters, in a row; zero where there is none
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


def without_cache(case: str, dtype: torch.dtype, batches: list[Share], weights: list[float]) -> Answer:
    encoders, objective = make(case, dtype)
    outputs = [
        objective({name: encoders[name](x) for name, x in b.features.items()}, present=b.present, ids=b.ids, group=None)
        for b in batches
    ]
    torch.stack([weight * out.total for weight, out in zip(weights, outputs, strict=True)]).sum().backward()
    return answer(encoders, objective, [out.total.detach() for out in outputs], [out.terms for out in outputs])


def with_cache(
    rank: int, group: Any, case: str, dtype: torch.dtype, batches: list[list[Share]], weights: list[float]
) -> Answer:
    """One process; `batches`: for each process its share of every batch. Odd processes make larger pieces."""
    encoders, objective = make(case, dtype)
    outputs = []
    for share, weight in zip(batches[rank], weights, strict=True):
        outputs.append(
            grad_cache_backward(
                objective,
                lambda piece: {name: encoders[name](x) for name, x in piece.items()},
                in_pieces(share.features, 3 if rank % 2 else 2),
                present=share.present,
                ids=share.ids,
                group=group,
                weight=weight,
            )
        )
    return answer(encoders, objective, [out.total for out in outputs], [out.terms for out in outputs])


def in_pieces(features: Features, size: int) -> list[Features]:
    """As a user's loop cuts, where nothing is no piece; columns of zero rows are one piece of zero rows here."""
    rows = max((len(x) for x in features.values()), default=0)
    pieces = [{name: x[at : at + size] for name, x in features.items()} for at in range(0, rows, size)]
    return pieces or ([features] if features else [])


def shares(batch: Share, sizes: tuple[int, ...]) -> list[Share]:
    """What each process has; nothing at all where it has no rows."""
    ids = [None] * len(sizes) if batch.ids is None else list(batch.ids.split(list(sizes)))
    rows = zip(cut(batch.features, sizes), cut(batch.present, sizes), ids, sizes, strict=True)
    return [Share((features or {}) if size else {}, present, own) for features, present, own, size in rows]


def assert_equal_to_one_process(
    pool: Pool, case: str, dtype: torch.dtype, wholes: list[Share], own: list[list[Share]], weights: list[float]
) -> None:
    expected = without_cache(case, dtype, wholes, weights)
    assert expected.encoders.norm() > 1e-3
    parts = pool.run(with_cache, case, dtype, own, weights, processes=len(own))
    # Terms of both signs leave a total that is smaller than its rounding.
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


dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
cases = pytest.mark.parametrize("case", OBJECTIVES)


def draw(case: str, seed: int, dtype: torch.dtype) -> tuple[Share, int, int]:
    modalities = fit_modalities(case, 3)
    items = fit_items(case, modalities, 9)
    return Share(draw_batch(seed, modalities, items, 5, dtype)), modalities, items


@dtypes
@cases
def test_two_processes_add_up_two_batches(pool: Pool, case: str, dtype: torch.dtype) -> None:
    """Three pieces here and two there, then two and two; the weighted sum of the losses of two batches."""
    (first, _, items), (second, _, _) = draw(case, 17, dtype), draw(case, 19, dtype)
    own = zip(shares(first, fit_sizes((5, 4), items)), shares(second, fit_sizes((3, 6), items)), strict=True)
    assert_equal_to_one_process(pool, case, dtype, [first, second], [list(pair) for pair in own], [0.25, 1.5])


@dtypes
@cases
def test_three_processes_of_which_one_has_no_piece(pool: Pool, case: str, dtype: torch.dtype) -> None:
    batch, modalities, items = draw(case, 23, dtype)
    # Four of nine items are complete: some objectives have nothing else.
    batch = batch._replace(ids=draw_ids(7, items), present=draw_present(21, modalities, items))
    own = shares(batch, fit_sizes((4, 0, 5), items))
    assert not own[1].features
    assert_equal_to_one_process(pool, case, dtype, [batch], [[share] for share in own], [1.0])


@dtypes
@cases
def test_four_processes_of_which_one_lacks_a_modality(pool: Pool, case: str, dtype: torch.dtype) -> None:
    """Process 1 lacks m1; process 2 has one piece, of zero rows."""
    batch, _, items = draw(case, 29, dtype)
    sizes = fit_sizes((3, 4, 0, 2), items)
    present = {name: torch.ones(items, dtype=torch.bool) for name in batch.features}
    present["m1"][sizes[0] : sizes[0] + sizes[1]] = False
    batch = batch._replace(present=present)
    own = shares(batch, sizes)
    del own[1].features["m1"], own[1].present["m1"]  # type: ignore[union-attr]
    own[2] = Share({name: x[:0] for name, x in batch.features.items()})
    assert_equal_to_one_process(pool, case, dtype, [batch], [[share] for share in own], [1.0])
