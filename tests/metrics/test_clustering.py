"""Compare k-means and V-measure with scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score, v_measure_score

import unialign.ops._tiles as tiles_module
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.metrics import kmeans, resample_weights, v_measure, weighted_v_measure

labelings = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(-2, 4), min_size=n, max_size=n) for _ in range(2)))
)


def blobs(n=300, clusters=6, dim=8, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((clusters, dim))
    labels = rng.integers(0, clusters, n)
    return torch.from_numpy(centers[labels] + spread * rng.standard_normal((n, dim))), labels


@settings(max_examples=60, deadline=None)
@given(pair=labelings)
def test_v_measure_equals_scikit_learn(pair):
    labels, clusters = pair
    assert v_measure(labels, clusters) == pytest.approx(v_measure_score(labels, clusters), abs=1e-9)
    assert v_measure(labels, clusters) == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=1e-9)
    assert v_measure(clusters, labels) == pytest.approx(v_measure(labels, clusters), abs=1e-12)


def test_labels_can_be_texts_or_tensors():
    assert v_measure(["cat", "cat", "dog"], torch.tensor([5, 5, -1])) == pytest.approx(1.0)
    assert v_measure(["a", "a"], [0, 1]) == pytest.approx(0.0)


def test_weights_count_items_as_copies():
    _, labels = blobs(60)
    clusters = np.random.default_rng(1).integers(0, 5, 60)
    weights = resample_weights(60, resamples=6, seed=0)
    wanted = [v_measure_score(np.repeat(labels, w), np.repeat(clusters, w)) for w in weights.int().numpy()]
    np.testing.assert_allclose(weighted_v_measure(labels, clusters, weights), wanted, atol=1e-12)
    assert weighted_v_measure(labels, clusters, torch.zeros(1, 60)).isnan().all()


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_kmeans_is_as_good_as_scikit_learn(spread):
    x = torch.nn.functional.normalize(blobs(spread=spread)[0])
    found = kmeans(x, 6, seed=0)
    labels = KMeans(6, n_init=10, random_state=0).fit(x.numpy()).labels_
    sums = torch.stack([x[torch.from_numpy(labels == k)].sum(0) for k in range(6)])
    # Since |x - c|^2 = 2 - 2 <x, c>, the best center of a cluster is the normalized sum of its rows.
    assert found.inertia <= float(2 * len(x) - 2 * sums.norm(dim=1).sum()) * 1.01
    means = torch.nn.functional.normalize(torch.stack([x[found.labels == k].sum(0) for k in range(6)]))
    torch.testing.assert_close(found.centers, means, rtol=1e-9, atol=1e-9)
    assert found.inertia == pytest.approx(float((x - means[found.labels]).square().sum()), rel=1e-6)
    if spread == 0.1:
        assert v_measure(labels, found.labels) == pytest.approx(1.0)


def test_kmeans_ignores_row_lengths():
    x, labels = blobs(spread=0.1)
    scale = torch.logspace(-3, 3, len(x), dtype=torch.float64)[:, None]
    found, scaled = kmeans(x, 6, seed=0), kmeans((x * scale).float(), 6, seed=0)
    assert v_measure(labels, found.labels) == pytest.approx(1.0)
    assert v_measure(found.labels, scaled.labels) == pytest.approx(1.0)
    torch.testing.assert_close(found.centers.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_clusters_depend_on_the_seed_but_not_on_the_tile_size(monkeypatch):
    x, _ = blobs(spread=1.0)
    first = kmeans(x, 9, seed=3, restarts=2)
    assert torch.equal(kmeans(x, 9, seed=3, restarts=2).labels, first.labels)
    monkeypatch.setattr(tiles_module, "TILE", 100)
    assert torch.equal(kmeans(x.numpy(), 9, seed=3, restarts=2).labels, first.labels)
    assert kmeans(x, 9, seed=3, restarts=8).inertia <= first.inertia


def test_degenerate_data():
    point = torch.ones(7, 3)
    assert kmeans(point, 3, seed=0).inertia == pytest.approx(0.0, abs=1e-12)
    assert v_measure(range(7), kmeans(point, 3, seed=0).labels) < 1
    x, _ = blobs(12)
    assert sorted(kmeans(x, 12, seed=0).labels.tolist()) == list(range(12))
    assert kmeans(x, 1, seed=0).labels.tolist() == [0] * 12
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert torch.isfinite(kmeans(opposite, 1, seed=0).centers).all()


def test_errors():
    for call, error, text in [
        (lambda x: kmeans(x, 6, seed=0), ConfigError, "from 1 to 5, the number of rows"),
        (lambda x: kmeans(x, 0, seed=0), ConfigError, "from 1 to 5"),
        (lambda x: kmeans(x, 2, seed=0, restarts=0), ConfigError, "at least 1"),
        (lambda x: kmeans(x[0], 2, seed=0), ShapeError, r"\(3,\)"),
        (lambda x: kmeans(x * 0, 2, seed=0), NonFiniteError, "norm zero"),
        (lambda x: kmeans(x * torch.nan, 2, seed=0), NonFiniteError, "row 0"),
        (lambda x: v_measure([0, 1], [0, 1, 2]), ShapeError, "2 labels and 3 clusters"),
        (lambda x: v_measure([0.5, 1], [0, 1]), ShapeError, "labels is float64"),
        (lambda x: v_measure(x[:0, 0].long(), x[:0, 0].long()), ShapeError, "at least one"),
        (lambda x: weighted_v_measure([0, 1], [0, 1], torch.ones(2, 3)), ShapeError, r"\(resamples, 2\)"),
    ]:
        with pytest.raises(error, match=text):
            call(torch.arange(15.0).reshape(5, 3) + 1)
