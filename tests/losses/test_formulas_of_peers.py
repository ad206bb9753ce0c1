"""Compare totals and gradients with float64 formulas of other libraries and papers.

Shapes: `M` modalities, `B` items, `D` dim.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from loss_cases import draw_batch, draw_present
from unialign.losses import GRAM, PMRL, AlignUniform, InfoNCE, ModGap, Objective, Sigmoid, Symile, Triangle

Formula = Callable[[Sequence[Tensor]], Tensor]


def check(objective: Objective, formula: Formula, embeddings: dict[str, Tensor]) -> None:
    leaves = [z.double().requires_grad_() for z in embeddings.values()]
    expected = formula([normalize(z, dim=-1) for z in leaves])
    wanted = torch.stack(torch.autograd.grad(expected, leaves))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 5e-6)):
        rows = {m: z.to(dtype).requires_grad_() for m, z in embeddings.items()}
        total = objective.to(dtype)(rows).total
        found = torch.stack(torch.autograd.grad(total, list(rows.values()))).double()
        assert float((total - expected).detach().abs()) <= tolerance * max(1.0, float(expected.detach().abs()))
        assert float((found - wanted).norm()) <= tolerance * max(1.0, float(wanted.norm()))


def two_way(logits: Tensor, smoothing: float = 0.0) -> Tensor:
    target = torch.arange(len(logits))
    return sum(cross_entropy(table, target, label_smoothing=smoothing) for table in (logits, logits.mT)) / 2


def two_views(x_BD: Tensor, y_BD: Tensor, temperature: float) -> Tensor:
    """Compute NT-Xent with `InfoNCE`: the keys are the queries with swapped views, and equal ids mask self pairs."""
    ids_B = torch.arange(len(x_BD)).repeat(2)
    both = {"query": torch.cat([x_BD, y_BD]), "key": torch.cat([y_BD, x_BD])}
    return InfoNCE(temperature=temperature)(both, ids=ids_B).total


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_nt_xent_of_lightly(temperature: float):
    """Compare with Algorithm 1 of SimCLR (arXiv 2002.05709), for the shapes and temperatures of lightly's test."""
    for items in (1, 2, 4):
        for dim in (1, 2, 16, 64):
            x_BD, y_BD = draw_batch(items + dim, 2, items, dim, torch.float32).values()
            z_ND = normalize(torch.cat([x_BD, y_BD]).double(), dim=-1)
            cosine_NN = (z_ND @ z_ND.mT / temperature).fill_diagonal_(-torch.inf)
            expected = cross_entropy(cosine_NN, torch.arange(2 * items).roll(items)).item()
            assert two_views(x_BD, y_BD, temperature).item() == pytest.approx(expected, abs=1e-5)
            assert two_views(y_BD, x_BD, temperature).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_nt_xent_of_correlated_rows(temperature: float):
    """If all rows have the same direction, the 2 N - 1 keys are equally likely (from lightly's tests)."""
    for items in (1, 2, 8, 16):
        x_BD, y_BD = (row.abs() * torch.tensor([1.0, 2.0]) for row in draw_batch(1, 2, items, 1).values())
        total = two_views(x_BD, y_BD, temperature).item()
        assert total == pytest.approx(math.log(2 * items - 1), abs=1e-9)


def test_hypersphere_loss_of_lightly():
    """The loss is the alignment plus the mean of two uniformities, for the batch sizes of lightly's test."""
    objective = AlignUniform(t=1.0)
    for items in range(2, 20):
        x_BD, y_BD = draw_batch(items, 2, items, 32, torch.float32).values()

        def formula(rows: Sequence[Tensor]) -> Tensor:
            x, y = rows
            spread = [torch.pdist(z).square().neg().exp().mean().log() for z in rows]
            return (x - y).square().sum(1).mean() + (spread[0] + spread[1]) / 2

        check(objective, formula, {"x": x_BD.double(), "y": y_BD.double()})
        single = AlignUniform(t=1.0)
        assert single({"x": x_BD, "y": y_BD}).total.item() == single({"x": y_BD, "y": x_BD}).total.item()


@pytest.mark.parametrize("seed", range(4))
def test_pairs_with_missing_modalities_as_in_mmlearn(seed: int):
    """mmlearn sums the symmetric losses of all pairs of modalities that have common items."""
    embeddings, present = draw_batch(seed, 4, 12, 8), draw_present(seed, 4, 12)
    present["m3"] = ~present["m2"] & (torch.arange(12) < 4)  # Some pairs of modalities have few or no common items.
    for logit_scale in (1.0, 14.3):
        losses = []
        for m, n in combinations(embeddings, 2):
            shared = present[m] & present[n]
            if shared.any():
                x, y = (normalize(embeddings[name][shared], dim=-1) for name in (m, n))
                losses.append(two_way(logit_scale * x @ y.mT))
        total = InfoNCE(temperature=1 / logit_scale)(embeddings, present=present).total
        assert (total * len(losses)).item() == pytest.approx(float(sum(losses)), abs=1e-10)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_gram_from_its_formula(modalities: int):
    """The logits contain the volume sqrt |det G| of each anchor with each tuple, as in the released code."""

    def formula(rows: Sequence[Tensor]) -> Tensor:
        items = len(rows[0])
        anchor = rows[0][:, None].expand(-1, items, -1)
        others = [z[None].expand(items, -1, -1) for z in rows[1:]]
        tuples = torch.stack([anchor, *others], 2)
        return two_way(-torch.linalg.det(tuples @ tuples.mT).abs().sqrt() / 0.07, 0.1)

    check(GRAM("m0"), formula, draw_batch(10, modalities, 9, 12))


@pytest.mark.parametrize("form", ["area", "squared"])
def test_triangle_from_its_formula(form: str):
    """The area is sqrt(|u|^2 |w|^2 - <u, w>^2) / 2 with u = t - v and w = v - a; the released code omits the root."""

    def formula(rows: Sequence[Tensor]) -> Tensor:
        t, v, a = rows
        u, w = t[:, None] - v[None], (v - a)[None]
        square = u.square().sum(-1) * w.square().sum(-1) - (u * w).sum(-1) ** 2
        return two_way(-(square if form == "squared" else square.sqrt()) / 2 / 0.07, 0.1)

    check(Triangle("m0", form=form), formula, draw_batch(11, 3, 9, 12))


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_pmrl_from_its_formula(modalities: int):
    """PMRL applies softmax cross-entropy to the singular values (target: the largest) and to the leading vectors."""

    def formula(rows: Sequence[Tensor]) -> Tensor:
        columns = torch.stack(list(rows), -1)
        left, sigma, _ = torch.linalg.svd(columns, full_matrices=False)
        u_1 = left[..., 0]
        lean = (u_1 * columns.mean(-1)).sum(-1)
        first = (u_1 * columns[..., 0]).sum(-1)
        u_1 = u_1 * torch.where(lean.abs() > 1e-9, lean, first).sign().detach()[:, None]
        rank_one = cross_entropy(sigma / 0.05, torch.zeros(len(sigma), dtype=torch.long))
        return rank_one + two_way(u_1 @ u_1.mT / 0.1)

    check(PMRL(intra_temperature=0.05), formula, draw_batch(12, modalities, 9, 12))


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_modgap_from_its_formula(modalities: int):
    """ModGap is L_ATP + L_CU + InfoNCE with the anchor and normalized centroids (arXiv 2601.18525)."""

    def formula(rows: Sequence[Tensor]) -> Tensor:
        anchor, *others = rows
        pull = sum((anchor - z).square().sum(-1).mean() for z in others) / len(others)
        centroid = normalize(torch.stack(list(rows)).mean(0), dim=-1)
        spread = torch.pdist(centroid).square().mul(-2).exp().mean().log()
        return pull + spread + sum(two_way(anchor @ z.mT / 0.1) for z in others) / len(others)

    check(ModGap("m0"), formula, draw_batch(13, modalities, 9, 12))


def test_symile_from_its_formula():
    """The logits are multilinear products of one vector with all pairs of the two others."""

    def formula(rows: Sequence[Tensor]) -> Tensor:
        losses = []
        for r in range(3):
            x, y, z = rows[r], rows[r - 2], rows[r - 1]
            logits = torch.einsum("id,jd,kd->ijk", x, y, z) / 0.05
            own = torch.arange(len(x))
            losses.append(cross_entropy(logits.flatten(1), own * len(x) + own))
        return sum(losses) / 3

    check(Symile(negatives="all", temperature=0.05, temperature_mode="fixed"), formula, draw_batch(14, 3, 8, 12))


def test_symile_of_two_modalities_is_clip():
    for negatives in ("all", "sampled"):
        objective = Symile(negatives=negatives, temperature=0.1, temperature_mode="fixed").eval()
        check(objective, lambda rows: two_way(rows[0] @ rows[1].mT / 0.1), draw_batch(15, 2, 8, 12))


def test_siglip_from_its_formula():
    """SigLIP is -1/B sum_ij log sigma(y_ij (t cos_ij + b)), here with open_clip's initial values t = 10 and b = -10."""

    def formula(rows: Sequence[Tensor]) -> Tensor:
        sign = 2 * torch.eye(len(rows[0]), dtype=torch.float64) - 1
        return -logsigmoid(sign * (10 * rows[0] @ rows[1].mT - 10)).sum() / len(rows[0])

    check(Sigmoid(), formula, draw_batch(16, 2, 20, 12))
