"""Test distances between image sets against closed forms, loops, torchmetrics and, for item weights, repeated rows."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from unialign.errors import NonFiniteError, ShapeError
from unialign.generation._distances import (
    Average,
    Frechet,
    KernelDistance,
    PairMean,
    cubic_kernel,
    frechet_distance,
    gaussian_kernel,
    kernel_distance,
)
from unialign.geometry import mmd2

WEIGHTS = torch.tensor([[1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 3, 0], [0, 0, 1, 4, 1, 0]], dtype=torch.float64)


def normal(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_rows(mean: Tensor, covariance: Tensor, rows: int = 50) -> Tensor:
    x = normal(rows, len(mean))
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.mT @ x / (rows - 1))).mT
    return white @ torch.linalg.cholesky(covariance).mT + mean


def repeated(x: Tensor, weights: Tensor) -> Tensor:
    return x.repeat_interleave(weights.long(), 0)


def kernel_statistic(x: Tensor, y: Tensor) -> KernelDistance:
    return KernelDistance((PairMean(cubic_kernel(x, x)), PairMean(cubic_kernel(y, y))), cubic_kernel(x, y))


def test_frechet_of_gaussians_whose_distance_is_known() -> None:
    mean_x, mean_y = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    scale_x, scale_y = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 1.0, 0.25]).double()
    x, y = exact_rows(mean_x, scale_x.diag()), exact_rows(mean_y, scale_y.diag(), rows=31)
    # If the covariances commute, the distance is |m - m'|^2 + sum of (s - s')^2 with the standard deviations s and s'.
    assert frechet_distance(x, y) == pytest.approx(10 + 4 + 1 + 0, abs=1e-9)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    a = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()
    b = torch.tensor([[1.0, -0.5], [-0.5, 2.0]]).double()
    # For 2 x 2 matrices, tr (ab)^(1/2) = sqrt(tr ab + 2 sqrt(det a det b)).
    root = torch.sqrt((a @ b).trace() + 2 * torch.sqrt(a.det() * b.det()))
    zero = torch.zeros(2).double()
    expected = float(a.trace() + b.trace() - 2 * root)
    assert frechet_distance(exact_rows(zero, a), exact_rows(zero, b)) == pytest.approx(expected, rel=1e-9)


def test_frechet_by_scipys_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = normal(40, 6), normal(30, 6, seed=1) * 2 + 1
    root = linalg.sqrtm((x.mT.cov() @ y.mT.cov()).numpy()).real
    expected = float((x.mean(0) - y.mean(0)).square().sum() + (x.mT.cov() + y.mT.cov()).trace()) - 2 * root.trace()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [40, 5])
def test_a_set_has_distance_0_from_itself_in_any_order(rows: int) -> None:
    """With fewer rows than features, square roots of rounded zero eigenvalues must not add an error of 1e-6."""
    x, y = normal(rows, 12), normal(rows, 12, seed=1)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x[order]) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x[order], y) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert kernel_distance(x[order], y) == pytest.approx(kernel_distance(x, y), rel=1e-12)


def test_a_large_mean_keeps_the_digits() -> None:
    x, y = normal(30, 4), normal(30, 4, seed=1)
    assert frechet_distance(x + 1e6, y + 1e6) == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_kernel_distance_by_loops() -> None:
    x, y = normal(7, 3), normal(5, 3, seed=1) + 1

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    own = (
        sum(k(a, b) for a, b in itertools.permutations(x, 2)) / 42
        + sum(k(a, b) for a, b in itertools.permutations(y, 2)) / 20
    )
    assert kernel_distance(x, y) == pytest.approx(own - 2 * sum(k(a, b) for a in x for b in y) / 35, rel=1e-12)


def test_kernel_distance_is_0_on_average_for_equal_distributions() -> None:
    values = torch.tensor([kernel_distance(normal(20, 4, seed=i), normal(20, 4, seed=1000 + i)) for i in range(200)])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 200**0.5
    assert bool((values < 0).any())


class Flat(nn.Module):
    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).double()


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_both_agree_with_torchmetrics() -> None:
    fid, kid = (pytest.importorskip(f"torchmetrics.image.{name}") for name in ("fid", "kid"))
    x, y = (torch.rand(40, 3, 2, 1, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
    y = y**2
    frechet = fid.FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 1)).set_dtype(
        torch.float64
    )
    kernel = kid.KernelInceptionDistance(feature=Flat(), normalize=True, subsets=1, subset_size=40)
    for metric in (frechet, kernel):
        metric.update(x, real=True)
        metric.update(y, real=False)
    x_NF, y_NF = x.flatten(1), y.flatten(1)
    assert frechet_distance(x_NF, y_NF) == pytest.approx(float(frechet.compute()), rel=1e-6)
    assert kernel_distance(x_NF, y_NF) == pytest.approx(float(kernel.compute()[0]), rel=1e-6)


def test_frechet_weights_are_rows_that_are_repeated() -> None:
    x, y = normal(6, 3), normal(6, 3, seed=1)
    expected = [frechet_distance(repeated(x, w), repeated(y, w)) for w in WEIGHTS]
    torch.testing.assert_close(Frechet(x, y).evaluate(WEIGHTS), torch.tensor(expected, dtype=torch.float64))


def test_frechet_answers_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(6, 3), normal(6, 3, seed=1)
    whole = Frechet(x, y).evaluate(WEIGHTS)
    monkeypatch.setattr("unialign.generation._distances._BLOCK", 1)
    torch.testing.assert_close(Frechet(x, y).evaluate(WEIGHTS), whole)


def test_kernel_weights_leave_out_pairs_of_copies() -> None:
    x, y = normal(6, 3), normal(6, 3, seed=1)
    expected = []
    for w in WEIGHTS:
        # Rows are (item, copy). Copies of an item form no pairs, except that a row is paired with itself across the
        # sets.
        rows = [(i, copy) for i in range(6) for copy in range(int(w[i]))]

        def mean(k: Tensor, kind: str, rows: list[tuple[int, int]] = rows) -> float:
            pairs = [(a, b) for a in rows for b in rows if a[0] != b[0] or (kind == "cross" and a == b)]
            return sum(float(k[a[0], b[0]]) for a, b in pairs) / len(pairs)

        own = mean(cubic_kernel(x, x), "own") + mean(cubic_kernel(y, y), "own")
        expected.append(own - 2 * mean(cubic_kernel(x, y), "cross"))
    torch.testing.assert_close(kernel_statistic(x, y).evaluate(WEIGHTS), torch.tensor(expected, dtype=torch.float64))


def test_weights_of_one_are_the_distance_itself() -> None:
    x, y = normal(20, 3), normal(20, 3, seed=1)
    ones = torch.ones(1, 20)
    assert float(Frechet(x, y).evaluate(ones)) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert float(kernel_statistic(x, y).evaluate(ones)) == pytest.approx(kernel_distance(x, y), rel=1e-12)


def test_resampled_kernel_distance_has_no_bias_of_copies() -> None:
    """Copies of an item must not form pairs, or resampling would increase the distance."""
    x, y = normal(30, 4), normal(30, 4, seed=1)
    draws = torch.randint(30, (4000, 30), generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(4000, 30, dtype=torch.float64).scatter_add_(1, draws, torch.ones(4000, 30).double())
    values = kernel_statistic(x, y).evaluate(weights)
    assert abs(float(values.mean()) - kernel_distance(x, y)) < 4 * float(values.std()) / 4000**0.5 + 0.01


def test_gaussian_kernel_gives_the_mmd_of_diagnostics() -> None:
    x, y = (nn.functional.normalize(normal(9, 4, seed=i) + i) for i in (0, 1))
    own = (PairMean(gaussian_kernel(x, x, 0.7)), PairMean(gaussian_kernel(y, y, 0.7)))
    found = KernelDistance(own, gaussian_kernel(x, y, 0.7)).evaluate(torch.ones(1, 9))
    assert float(found) == pytest.approx(float(mmd2(x, y, bandwidth=0.7, unbiased=True)), rel=1e-9)


def test_a_single_item_has_no_distance() -> None:
    x, y = normal(3, 2), normal(3, 2, seed=1)
    weights = torch.tensor([[0.0, 3.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert PairMean(cubic_kernel(x, x)).evaluate(weights).isnan().tolist() == [True, True, False]
    assert kernel_statistic(x, y).evaluate(weights).isnan().tolist() == [True, True, False]
    # Three copies of a row have zero covariance, so the result is the squared distance between the two rows.
    found = Frechet(x, y).evaluate(weights)
    assert float(found[0]) == pytest.approx(float((x[1] - y[1]).square().sum()))
    assert found.isnan().tolist() == [False, True, False]


def test_average() -> None:
    x = normal(6, 3)
    a, b = PairMean(cubic_kernel(x, x)), PairMean(x @ x.mT)
    expected = 3 * (a.evaluate(WEIGHTS) + b.evaluate(WEIGHTS)) / 2 + 1
    torch.testing.assert_close(Average([a, b], scale=3, offset=1).evaluate(WEIGHTS), expected)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_invalid_input_raises(distance: type) -> None:
    x = normal(4, 3)
    with pytest.raises(ShapeError, match=r"x is torch.float64 of shape \(1, 3\).*N of at least 2"):
        distance(x[:1], x)
    with pytest.raises(ShapeError, match=r"y is torch.float64 of shape \(4,\)"):
        distance(x, x[:, 0])
    with pytest.raises(ShapeError, match="x has dim 3, but y has dim 2"):
        distance(x, x[:, :2])
    with pytest.raises(ShapeError, match="complex"):
        distance(x.to(torch.complex128), x)
    bad = x.clone()
    bad[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="y, row 2, holds nan at column 1"):
        distance(x, bad)
