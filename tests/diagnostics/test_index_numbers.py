"""Test the numbers about mixed galleries, distributions, cut-offs and truncation against direct computations."""

import itertools

import numpy as np
import pytest
import torch
from spaces import ITEMS, checked, healthy, unit

import unialign as ua
from unialign.diagnostics._cutoffs import measure_cutoffs
from unialign.diagnostics._details import shared_component
from unialign.diagnostics._sampling import ItemSample
from unialign.diagnostics._shape import measure_shape
from unialign.diagnostics._truncation import _one_positive, principal_directions
from unialign.diagnostics._weighted_pairs import exact_pair_means, pair_means


def rows(items, dim, seed=0):
    return torch.from_numpy(unit(np.random.default_rng(seed).normal(size=(items, dim))).astype(np.float64))


def weights(items, resamples=400, seed=0):
    return ua.metrics.resample_weights(items, resamples=resamples, seed=seed)


def test_means_over_pairs_equal_loops_and_the_projection_has_their_spread():
    items = 40
    value = torch.from_numpy(np.random.default_rng(0).gamma(1.0, size=(items, items)))
    value += torch.arange(items) / 10
    class_n = torch.arange(items) // 2
    different = class_n[:, None] != class_n
    weights_Rn = weights(items)
    pairs = [(i, j) for i in range(items) for j in range(items) if i // 2 != j // 2]
    expected = np.mean([float(value[i, j]) for i, j in pairs])
    w = weights_Rn[7].numpy()
    total = sum(w[i] * w[j] for i, j in pairs)
    resampled = sum(w[i] * w[j] * float(value[i, j]) for i, j in pairs) / total
    exact, exact_R = exact_pair_means(value, different, weights_Rn)
    projected, projected_R = pair_means(value, different, weights_Rn)
    assert exact == pytest.approx(expected)
    assert projected == pytest.approx(expected)
    assert float(exact_R[7]) == pytest.approx(resampled)
    assert float(projected_R.std()) == pytest.approx(float(exact_R.std()), rel=0.1)
    assert float(np.corrcoef(projected_R, exact_R)[0, 1]) > 0.98


def test_a_cutoff_is_exceeded_by_the_stated_fraction_of_pairs_of_different_classes():
    items = 150
    x, noise = rows(items, 12), rows(items, 12, 1)
    y = torch.nn.functional.normalize(x + 0.8 * noise, dim=1)
    class_n = np.arange(items) // 2
    cosine = (x @ y.mT).numpy()
    random = np.sort(cosine[class_n[:, None] != class_n])[::-1]
    found = measure_cutoffs(x, y, class_n, weights(items))
    assert [cutoff.rate for cutoff in found] == [0.01, 0.001]  # 2.2 pairs exceed the cut-off of the rate 0.01 %
    for cutoff in found:
        assert cutoff.cosine.mean == random[int(cutoff.rate * len(random))]
        assert (random > cutoff.cosine.mean).mean() <= cutoff.rate
        assert cutoff.true_fraction.mean == pytest.approx((np.diag(cosine) > cutoff.cosine.mean).mean())
        assert cutoff.cosine.low < cutoff.cosine.mean < cutoff.cosine.high
        assert cutoff.true_fraction.low < cutoff.true_fraction.mean


def test_equal_cosines_and_few_items_have_a_decided_cutoff():
    constant = torch.ones(100, 4, dtype=torch.float64) / 2
    found = measure_cutoffs(constant, constant, np.arange(100), weights(100))
    assert [(cutoff.cosine.mean, cutoff.true_fraction.mean) for cutoff in found] == [(1.0, 0.0)]
    assert measure_cutoffs(constant[:20], constant[:20], np.arange(20), weights(20)) == ()
    assert measure_cutoffs(constant, constant, np.zeros(100, np.int64), weights(100)) == ()


def test_the_distribution_gap_is_the_mmd_of_centered_rows_of_different_items():
    items = 30
    x, y = rows(items, 5), torch.nn.functional.normalize(rows(items, 5, 1) * torch.tensor([3.0, 1, 1, 1, 0.2]), dim=1)
    found = measure_shape(x, y, np.arange(items), weights(items), seed=0)
    x, y = (torch.nn.functional.normalize(z - z.mean(0), dim=1).numpy() for z in (x, y))

    def kernel(a, b):
        scaled = a @ b / found.bandwidth**2
        return np.exp(-np.square(a - b).sum() / (2 * found.bandwidth**2)) - np.exp(-1 / found.bandwidth**2) * (
            1 + scaled
        )

    total = sum(
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(y[i], x[j])
        for i, j in itertools.permutations(range(items), 2)
    )
    squared = total / (items * (items - 1))
    assert squared > 0
    assert found.distribution_gap.mean == pytest.approx(squared**0.5)


def test_the_distribution_gap_ignores_a_shift_and_its_p_value_is_uniform_without_a_gap():
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        latent = rng.normal(size=(60, 6))
        x, y = (torch.from_numpy(unit(latent + rng.normal(size=(60, 6)) + offset)).double() for offset in (0.0, 0.5))
        p.append(measure_shape(x, y, np.arange(60), weights(60, 20), seed=seed).distribution_p)
    assert np.mean(np.array(p) <= 0.1) <= 0.2
    assert 0.35 < np.mean(p) < 0.75


def test_the_covariance_mismatch_is_that_of_the_population():
    rng = np.random.default_rng(0)
    a, b = np.array([1.0, 1, 1, 1, 0, 0, 0, 0]), np.array([0.0, 0, 1, 1, 1, 1, 0, 0])
    x, y = (torch.from_numpy(unit(rng.normal(size=(900, 8)) * scale)).double() for scale in (a, b))
    found = measure_shape(x, y, np.arange(900), weights(900, 20), seed=0)
    # Covariances are diag(a) / 4 and diag(b) / 4, which share half of their trace.
    assert found.covariance_mismatch.mean == pytest.approx(0.5, abs=0.05)
    # The variance of a cosine of independent rows is tr(S_a S_b) = 2 / 16.
    assert found.deviation.mean == pytest.approx((2 / 16) ** 0.5, abs=0.01)


def test_the_shared_component_is_the_mean_cosine_of_rows_of_different_items_in_random_modalities():
    items, masks = 9, {"a": np.ones(9, bool), "b": np.arange(9) > 2}
    z = {
        name: rows(items, 3, seed).abs() * torch.from_numpy(mask)[:, None]
        for seed, (name, mask) in enumerate(masks.items())
    }
    z = {name: torch.nn.functional.normalize(x, dim=1) for name, x in z.items()}
    sample = ItemSample(
        rows_n=np.arange(items), z=z, usable={name: torch.from_numpy(mask) for name, mask in masks.items()},
        checksums={}, ids_n=np.arange(items), labels_n=None, weights_Rn=weights(items), kept_n=np.arange(items),
    )  # fmt: skip
    top, bottom = 0.0, 0.0
    for p, q in itertools.product(masks, repeat=2):
        weight = 1 / (4 * masks[p].sum() * masks[q].sum())
        for i, j in itertools.permutations(range(items), 2):
            if masks[p][i] and masks[q][j]:
                top += weight * float(z[p][i] @ z[q][j])
                bottom += weight
    assert shared_component(sample).mean == pytest.approx(top / bottom)
    constant = {name: torch.ones(items, 3, dtype=torch.float64) / 3**0.5 for name in masks}
    whole = ItemSample(
        **{**vars(sample), "z": constant, "usable": {name: torch.ones(items, dtype=bool) for name in masks}}
    )
    assert shared_component(whole).mean == pytest.approx(1.0)


def test_principal_directions_preserve_cosines_and_are_the_same_from_a_wide_and_a_tall_matrix():
    x = rows(60, 8) * torch.tensor([4.0, 3, 2, 1, 1, 1, 1, 1])
    axes = principal_directions([x])
    np.testing.assert_allclose(axes.mT @ axes, np.eye(8), atol=1e-12)
    np.testing.assert_allclose((x @ axes) @ (x @ axes).mT, x @ x.mT, atol=1e-12)
    padded = torch.nn.functional.pad(x, (0, 100))
    wide = principal_directions([padded])
    assert wide.shape == (108, 30)
    np.testing.assert_allclose(wide[:8, :4].abs(), axes[:, :4].abs(), atol=1e-6)
    assert principal_directions([]) is None


def test_truncated_retrieval_equals_the_public_function():
    space = healthy(("a", "b"), noise=1.0)
    numbers = checked(space).numbers["truncation"]
    a, b = (space[name][::2] for name in "ab")  # The other items are used for the fit.
    assert numbers["candidates"] == ITEMS // 2
    first = next(found for found in numbers["reduced"] if (found["kind"], found["dim"]) == ("first", 16))
    for found, dim in ((numbers, 32), (first, 16)):
        results = [ua.metrics.retrieval(q[:, :dim], g[:, :dim], k=(1, 10)) for q, g in ((a, b), (b, a))]
        assert found["recall@1"]["mean"] == pytest.approx(np.mean([result.recall[1] for result in results]))
        assert found["ndcg@10"]["mean"] == pytest.approx(np.mean([result.ndcg_at[10] for result in results]))
    loss = numbers["recall@1"]["mean"] - first["recall@1"]["mean"]
    assert first["recall@1_loss"]["mean"] == pytest.approx(loss)
    # The intervals of differences are paired, so they are narrower than the intervals for independent values.
    width = {key: first[key]["high"] - first[key]["low"] for key in ("recall@1", "recall@1_loss")}
    whole = numbers["recall@1"]["high"] - numbers["recall@1"]["low"]
    assert width["recall@1_loss"] < (width["recall@1"] ** 2 + whole**2) ** 0.5


def test_truncated_retrieval_with_ties_equals_the_public_function():
    x = torch.nn.functional.normalize(torch.round(rows(60, 2) * 2) + 0.1, dim=1)  # Many rows are equal.
    y = torch.roll(x, 1, 0)
    result = ua.metrics.retrieval(x, y, k=(1, 10))
    found = _one_positive(x @ y.mT)
    np.testing.assert_allclose(found[:, 0], result.scores("recall@1"), atol=1e-12)
    np.testing.assert_allclose(found[:, 1], result.scores("ndcg@10"), atol=1e-12)


def test_the_mixed_pool_equals_the_public_function():
    space = healthy(noise=1.0, items=200)
    numbers = checked(space, seed=3).numbers
    pair = ua.metrics.mixed_pool({name: space[name] for name in ("image", "text")}, seeds=(3,)).overall
    found = numbers["pairs"]["image-text"]["mixed_pool"]
    assert found["items"] == 200
    assert found["modality_share"]["mean"] == pytest.approx(pair.share, abs=1e-6)
    assert found["ndcg@10"]["mean"] == pytest.approx(pair.balanced, abs=1e-6)
    whole = ua.metrics.mixed_pool(space, seeds=(3,)).overall
    assert numbers["mixed_pool"]["ndcg@10_cross"]["mean"] == pytest.approx(whole.cross, abs=1e-6)
