"""Test volumes and areas of converged tuples: values and gradients in float32 against float64 of the same rows.

Shapes: `M` modalities, `B` items, `D` dim.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from loss_cases import draw_batch, value_and_gradients
from unialign.functional import gram_volume
from unialign.losses import GRAM, Objective, Triangle, UniAlign

VOLUME = {"uniformity_weight": 0.0, "alignment_weight": 0.0, "volume_weight": 1.0}


def draw_tuples(modalities: int, items: int, dim: int, cosine: float, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return rows of various lengths with pairwise cosines of about |`cosine`|.

    If `cosine` is negative, every second modality has the opposite sign.
    """
    center = normalize(draw_batch(1, 1, items, dim)["m0"], dim=-1)
    rows = {}
    for m, (name, noise) in enumerate(draw_batch(2, modalities, items, dim).items()):
        away = normalize(noise - (noise * center).sum(-1, keepdim=True) * center, dim=-1)
        sign = -1.0 if cosine < 0 and m % 2 else 1.0
        rows[name] = ((1 + m) * (sign * abs(cosine) ** 0.5 * center + (1 - abs(cosine)) ** 0.5 * away)).to(dtype)
    return rows


def heights(columns: Tensor) -> Tensor:
    return torch.linalg.qr(columns)[1].diagonal(dim1=-2, dim2=-1).abs()


def smoothed_contrast(logits: Tensor, smoothing: float = 0.1) -> Tensor:
    target = torch.arange(len(logits))
    ways = [cross_entropy(table, target, label_smoothing=smoothing) for table in (logits, logits.mT)]
    return (ways[0] + ways[1]) / 2


def exact_gram(rows: list[Tensor]) -> Tensor:
    items = len(rows[0])
    anchor, *others = (normalize(x, dim=-1) for x in rows)
    spread = [x[None].expand(items, -1, -1) for x in others]
    columns = torch.stack([*spread, anchor[:, None].expand(-1, items, -1)], -1)
    return smoothed_contrast(-heights(columns).prod(-1) / 0.07)


def exact_volume(rows: list[Tensor]) -> Tensor:
    return heights(torch.stack([normalize(x, dim=-1) for x in rows], -1)).prod(-1).mean()


def exact_triangle(rows: list[Tensor]) -> Tensor:
    t, v, a = (normalize(x, dim=-1) for x in rows)
    edges = torch.broadcast_tensors((v - a)[None], t[:, None] - v[None])
    return smoothed_contrast(-heights(torch.stack(edges, -1)).prod(-1) / 2 / 0.07)


def errors(
    objective: Objective, exact: Callable[[list[Tensor]], Tensor], rows: dict[str, Tensor]
) -> tuple[float, float]:
    value, gradients = value_and_gradients(objective, rows)
    leaves = [x.double().requires_grad_() for x in rows.values()]
    expected = exact(leaves)
    wanted = torch.stack(torch.autograd.grad(expected, leaves))
    found = torch.stack([g.double() for g in gradients.values()])
    return float((value - expected).detach().abs() / expected.detach()), float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("modalities", [2, 3, 5, 6])
def test_volumes_of_converged_tuples(modalities: int, dtype: torch.dtype):
    """Even at cosine 1 - 1e-6, the errors are only those of rounding unit rows to float32, 6e-8 / distance.

    For comparison, adding 1e-8 under the root gave a gradient error of 4.2e-2 for M = 5, D = 512 at cosine 0.998. A
    float64 determinant had a relative error above 1 for M = 6 at 0.998 and for M = 5 at 0.9999.
    """
    for dim in (16, 512):
        for cosine in (-1 + 1e-6, -0.5, 0.5, 0.998, 0.9999, 1 - 1e-6):
            rows = draw_tuples(modalities, 8, dim, cosine, dtype)
            if dtype == torch.bfloat16 and abs(cosine) > 0.9999:
                continue  # Distinct bfloat16 rows are at least 1e-3 apart.
            limit = 5e-3 if dtype == torch.bfloat16 else 2e-6 + 1.2e-7 / (1 - abs(cosine)) ** 0.5
            for objective, exact in ((GRAM("m0"), exact_gram), (UniAlign(**VOLUME), exact_volume)):
                value_error, gradient_error = errors(objective, exact, rows)
                assert value_error < 2e-5
                assert gradient_error < limit, (dim, cosine, objective.name)


def test_volumes_of_two_modalities_in_a_plane():
    """In two dimensions, rows of different items can be nearly parallel, so GRAM has a larger float32 error."""
    rows = draw_batch(7, 2, 8, 2, torch.float32)
    assert errors(UniAlign(**VOLUME), exact_volume, rows)[1] < 2e-6
    assert errors(GRAM("m0"), exact_gram, rows)[1] < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_areas_of_converged_tuples(dtype: torch.dtype):
    for dim in (16, 512):
        for cosine in (-1 + 1e-6, -0.5, 0.5, 0.998, 1 - 1e-6):
            if dtype == torch.bfloat16 and abs(cosine) > 0.9999:
                continue
            limit = 5e-3 if dtype == torch.bfloat16 else 2e-6 + 1.2e-7 / (1 - abs(cosine)) ** 0.5
            value_error, gradient_error = errors(Triangle("m0"), exact_triangle, draw_tuples(3, 8, dim, cosine, dtype))
            assert value_error < 2e-5
            assert gradient_error < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_coinciding_modalities_have_bounded_gradients(modalities: int, dtype: torch.dtype):
    """Gradients of volumes have norm at most 1, and are 0 at volume 0, with and without `eps`."""
    row = draw_batch(3, 1, 8, 16, dtype)["m0"]
    row = row / row.norm(dim=-1, keepdim=True)
    other = draw_batch(4, 1, 8, 16, dtype)["m0"]
    cases = [[row] * modalities, [other, *[row] * (modalities - 1)], [row, -row, *[other] * (modalities - 2)]]
    for eps in (None, 0.0, 1e-8):
        for rows in cases:
            embeddings = {f"m{m}": x for m, x in enumerate(rows)}
            objectives = [GRAM("m0", temperature=1.0, eps=eps), UniAlign(volume_eps=eps, **VOLUME)]
            objectives += [Triangle("m0", temperature=1.0, eps=eps)] if modalities == 3 else []
            for objective in objectives:
                value, gradients = value_and_gradients(objective, embeddings)
                assert torch.isfinite(value)
                assert max(float(g.norm(dim=-1).max()) for g in gradients.values()) < 1


def test_the_floor_is_an_option():
    row = draw_batch(5, 1, 4, 6)["m0"]
    equal = {"a": row, "b": 2 * row, "c": row}
    for eps, volume in ((0.0, 0.0), (1e-8, 1e-4)):
        torch.testing.assert_close(gram_volume(equal, eps=eps), torch.full((4,), volume).double(), atol=1e-7, rtol=0)
        term = UniAlign(volume_eps=eps, **VOLUME)(equal).terms["volume"]
        assert term.item() == pytest.approx(volume, abs=1e-7)


@pytest.mark.parametrize("make", [partial(UniAlign, **VOLUME), partial(GRAM, "m0"), partial(Triangle, "m0")])
def test_training_to_coinciding_modalities_is_stable(make: Callable[[], Objective]):
    """Without `eps`, the gradient is discontinuous at volume 0, but training stays finite and the loss falls."""
    rows = [x.requires_grad_() for x in draw_tuples(3, 8, 16, 0.99, torch.float32).values()]
    objective = make()
    optimizer = torch.optim.Adam([*rows, *objective.parameters()], lr=1e-2)
    totals = []
    for _ in range(30):
        optimizer.zero_grad()
        total = objective({f"m{m}": x for m, x in enumerate(rows)}).total
        total.backward()
        optimizer.step()
        assert all(torch.isfinite(x).all() for x in rows)
        totals.append(total.item())
    assert totals[-1] < totals[0]


def test_volumes_are_differentiable_twice():
    rows = [x.requires_grad_() for x in draw_batch(6, 3, 2, 5).values()]

    def volume(*rows: Tensor) -> Tensor:
        return gram_volume({f"m{m}": x for m, x in enumerate(rows)})

    assert torch.autograd.gradcheck(volume, rows)
    assert torch.autograd.gradgradcheck(volume, rows)
