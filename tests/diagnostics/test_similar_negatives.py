"""Test the numbers of similar negatives in a training batch, and the finding about them."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from spaces import checked, healthy, unit

from unialign.diagnostics._batch_neighbors import largest_cosines, measure_batch_neighbors, standardized
from unialign.diagnostics._close_cosine import close_bin, histograms, rising_fractions, surrogate_rows
from unialign.diagnostics._near_rows import equal_codes, find_near_rows
from unialign.errors import ConfigError
from unialign.metrics import resample_weights
from unialign.space._normalizer import Standardize

GROUP = 8


def grouped(names=("image", "text"), *, items=400, dim=32, within=0.5, seed=0):
    """Return a space in which the items form groups of eight similar items; `alone` has no groups."""
    rng = np.random.default_rng(seed)
    center = np.repeat(rng.standard_normal((items // GROUP, dim)), GROUP, axis=0)
    latent = center + within * rng.standard_normal((items, dim))
    space = {name: unit(latent + 0.3 * rng.standard_normal((items, dim))) for name in names}
    return space | {"alone": unit(rng.standard_normal((items, dim)))}


def negatives(diagnosis, name):
    return diagnosis.numbers["modalities"][name]["negatives"]


def measured(x, *, ids=None, present=None, labels=None, batch_size=256):
    """Measure the rows of several modalities without a file."""
    x = {name: torch.from_numpy(np.asarray(rows, np.float64)) for name, rows in x.items()}
    items = len(next(iter(x.values())))
    usable = {name: torch.ones(items, dtype=torch.bool) for name in x}
    usable |= {name: torch.from_numpy(mask) for name, mask in (present or {}).items()}
    ids_n = np.arange(items) if ids is None else ids
    sample = SimpleNamespace(
        usable=usable,
        ids_n=ids_n,
        labels_n=labels,
        kept_n=np.arange(items),
        weights_Rn=resample_weights(ids_n, resamples=100, seed=0),
    )
    scans, near = {}, {}
    for name, rows in x.items():
        scans[name] = SimpleNamespace(kept_kD=rows.numpy(), usable_N=usable[name].numpy())
        sums = np.unique(rows.numpy(), axis=0, return_inverse=True)[1].reshape(-1).astype(np.uint64)
        z = rows / rows.norm(dim=1, keepdim=True)
        near[name] = find_near_rows(z, usable[name], sums, ids_n)
        assert np.array_equal(equal_codes(sums, usable[name].numpy()) == near[name].code_n, np.ones(items, bool))
    return measure_batch_neighbors(sample, scans, near, items=items, batch_size=batch_size, seed=0)


def test_groups_of_similar_items_are_reported_for_their_modalities_only():
    diagnosis = checked(grouped())
    (finding,) = diagnosis.findings_with("similar_negatives")
    assert (finding.severity, finding.modalities) == ("note", ("image", "text"))
    low, high = (
        choose(negatives(diagnosis, name)["scale_range"][bound] for name in ("image", "text"))
        for choose, bound in ((min, "low"), (max, "high"))
    )
    assert f"scales from {low:.1f} to {high:.1f}" in finding.advice
    # Each query has 7 similar items among 399, so a batch of 256 holds 4.5 of them.
    for name in ("image", "text"):
        found = negatives(diagnosis, name)
        assert found["close"]["mean"] == pytest.approx(255 * (GROUP - 1) / 399, rel=0.15)
        assert found["close"]["low"] < found["close"]["mean"] < found["close"]["high"]
        assert found["close_in_other_modalities"] > 10 * found["close_in_other_modalities_chance"]
        assert found["largest_cosine"][1]["cosine"] > found["close_cosine"]
    assert negatives(diagnosis, "alone")["close"]["mean"] < 0.3


def test_a_larger_batch_has_more_similar_negatives():
    space = grouped()
    small, large = (checked(space, batch_size=size) for size in (32, 10_000))
    assert negatives(small, "image")["batch_size"] == 32
    assert negatives(large, "image")["batch_size"] == 400
    assert negatives(large, "image")["close"]["mean"] == pytest.approx(
        399 / 31 * negatives(small, "image")["close"]["mean"]
    )
    assert not small.findings_with("similar_negatives")
    assert "batch of 400 items" in large.findings_with("similar_negatives")[0].text


@pytest.mark.parametrize("seed", [0, 1])
def test_unrelated_rows_are_not_reported_for_any_distribution_of_the_columns(seed):
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((500, 24))
    x = {
        "normal": normal @ (rng.standard_normal((24, 48)) / np.arange(1, 49)),
        "relu": np.maximum(normal @ rng.standard_normal((24, 64)), 0),
        "exponential": rng.exponential(size=(500, 16)),
        "counts": rng.poisson(rng.gamma(0.5, 1.0, size=64) + 0.05, size=(500, 64)) + 1e-6 * rng.random((500, 64)),
        "heavy": rng.standard_t(3, size=(500, 32)),
    }
    x |= healthy(seed=seed, items=500)
    for name, found in measured(x).items():
        assert found.close.mean < 0.5, name


def test_numbers_equal_a_direct_computation():
    rng = np.random.default_rng(0)
    items, batch = 60, 20
    ids, labels = np.arange(items), rng.integers(-1, 3, items)
    ids[1], present = 0, rng.random(items) < 0.8
    present[:8] = True
    x = {"a": np.repeat(rng.standard_normal((10, 6)), 6, axis=0) + 0.4 * rng.standard_normal((items, 6))}
    x["a"][5] = x["a"][4]  # a copy
    x["b"] = 3 + 2 * rng.standard_normal((items, 9))
    found = measured(x, ids=ids, present={"a": present}, labels=labels, batch_size=batch)
    (rows,) = np.nonzero(present)
    z = (x["a"][rows] - x["a"][rows].mean(0)) / x["a"][rows].std(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = (batch - 1) * len(rows) / items
    count = {"copies": 0, "close": 0, 0.5: 0, 0.7: 0, 0.9: 0}
    lost, kept, same, close, alike = {5.0: [], 10.0: []}, {5.0: [], 10.0: []}, [], [], []
    for i in range(len(rows)):
        weight = {s: [] for s in lost}
        for j in range(len(rows)):
            if ids[rows[i]] == ids[rows[j]]:
                continue
            cosine = float(z[i] @ z[j])
            for s, of_row in weight.items():
                of_row.append(1 - math.exp(-s * max(0.0, cosine)))
            for bound in (0.5, 0.7, 0.9):
                count[bound] += cosine >= bound
            if set(rows[[i, j]]) == {4, 5}:
                count["copies"] += 1
                continue
            known = labels[rows[i]] >= 0 and labels[rows[j]] >= 0
            alike += [labels[rows[i]] == labels[rows[j]]] if known else []
            if cosine >= found["a"].close_cosine:
                close.append(cosine)
                count["close"] += 1
                for s, of_close in kept.items():
                    of_close.append(math.exp(-s * cosine))
                same += [labels[rows[i]] == labels[rows[j]]] if known else []
        for s, of_row in weight.items():
            lost[s].append(np.mean(of_row))
    pairs = len(rows) * (len(rows) - 1)
    a = found["a"]
    assert a.negatives == pytest.approx(expected)
    assert a.copies.mean == pytest.approx(expected * count["copies"] / pairs)
    assert a.close.mean == pytest.approx(expected * count["close"] / pairs)
    assert count["close"] > 0
    for bound, estimate in a.above.items():
        assert estimate.mean == pytest.approx(expected * count[bound] / pairs)
    for s in lost:
        assert a.removed[s].mean == pytest.approx(np.mean(lost[s]))
        assert a.close_weight[s] == pytest.approx(np.mean(kept[s]))
    for scale, weight in zip(a.scales, (1 / 2, 1 / 20), strict=True):
        assert np.mean([math.exp(-scale * cosine) for cosine in close]) == pytest.approx(weight)
    assert a.same_label == pytest.approx(np.mean(same))
    assert a.same_label_chance == pytest.approx(np.mean(alike))
    assert found["b"].negatives == batch - 1


def test_intervals_of_counts_are_as_wide_as_independent_samples_vary():
    rng = np.random.default_rng(0)
    found = [measured({"a": rng.standard_normal((60, 6))}, batch_size=50)["a"].above[0.5] for _ in range(60)]
    deviation = np.std([estimate.mean for estimate in found])
    width = np.mean([estimate.high - estimate.low for estimate in found]) / (2 * 1.96)
    assert 0.9 * deviation < width < 2 * deviation


def test_the_largest_cosine_of_a_batch_equals_the_one_of_all_batches():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(unit(rng.standard_normal((9, 4))).astype(np.float64))
    cosine = z @ z.mT
    largest = [
        max(float(cosine[i, j]) for j in batch)
        for i in range(9)
        for batch in itertools.combinations([j for j in range(9) if j != i], 3)
    ]
    found = largest_cosines(cosine, 3.0)
    for quantile, value in found.items():
        assert np.mean(np.array(largest) < value - 1e-12) <= quantile <= np.mean(np.array(largest) <= value + 1e-12)


def test_isotonic_fractions_equal_those_of_scikit_learn():
    isotonic = pytest.importorskip("sklearn.isotonic").isotonic_regression
    rng = np.random.default_rng(0)
    for _ in range(10):
        total = rng.integers(0, 9, 30).astype(float)
        count = np.floor(total * rng.random(30))
        some = total > 0
        expected = isotonic(count[some] / total[some], sample_weight=total[some])
        np.testing.assert_allclose(rising_fractions(count, total)[some], expected, atol=1e-12)
    assert np.isnan(rising_fractions(np.zeros(3), np.zeros(3))).all()


def test_the_first_close_bin_has_at_most_half_of_its_pairs_by_chance():
    null = np.array([100.0, 50, 10, 1, 0])
    assert close_bin(np.array([100.0, 60, 20, 9, 3]), null) == 2
    assert close_bin(null, null) == 4 or close_bin(null[:4], null[:4]) == 4
    assert close_bin(np.zeros(5), null) == 5


def test_surrogate_rows_keep_columns_and_correlations_but_not_groups():
    x = torch.from_numpy(grouped(("a",), items=400, dim=4)["a"].astype(np.float64))
    x[:, 1] = x[:, 0] + 0.2 * x[:, 1]
    y = surrogate_rows(x, 400, seed=0)
    assert torch.equal(y.sort(0).values, x.sort(0).values)
    assert torch.equal(y, surrogate_rows(x, 400, seed=0))
    torch.testing.assert_close(torch.corrcoef(y.T), torch.corrcoef(x.T), atol=0.15, rtol=0)
    group = torch.arange(400) // GROUP
    same = (group[:, None] == group) & ~torch.eye(400, dtype=torch.bool)
    assert float(torch.cdist(x, x)[same].mean()) < 0.6 * float(torch.cdist(y, y)[same].mean())


def test_histograms_count_each_cosine_once():
    cosine = torch.tensor([-1.0, -0.005, 0.0, 0.005, 0.555, 1.0], dtype=torch.float64)
    positive, negative = histograms(cosine)
    assert positive.nonzero()[0].tolist() == [0, 55, 99]
    assert negative.nonzero()[0].tolist() == [0, 99]
    assert (positive.sum(), negative.sum()) == (3, 3)


def test_features_are_standardized_as_for_training():
    rng = np.random.default_rng(0)
    x = (100 + rng.standard_normal((50, 6)) * 10.0 ** np.arange(6)).astype(np.float32)
    x[:, 2] = 7.0  # constant
    norm = Standardize(6)
    norm.fit(x, np.arange(50), name="a")
    expected = torch.nn.functional.normalize(norm(torch.from_numpy(x)).double(), dim=1)
    torch.testing.assert_close(standardized(torch.from_numpy(x.astype(np.float64))), expected, atol=1e-5, rtol=0)


def test_few_distinct_rows_have_no_numbers():
    space = healthy(("image", "text"))
    space["text"] = space["text"][np.arange(400) % 10]
    numbers = checked(space).numbers["modalities"]
    assert "negatives" not in numbers["text"]
    assert "negatives" in numbers["image"]


def test_invalid_batch_sizes_raise():
    for value in (1, 2.5, True):
        with pytest.raises(ConfigError, match="batch_size"):
            checked(healthy(), batch_size=value)
