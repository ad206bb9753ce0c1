"""Compare the omni protocol with float64 loops, and test ties, shared ids, pools, intervals and errors."""

import itertools

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.evaluation import omni
from unialign.geometry import modality_gap_debiased
from unialign.metrics import mixed_pool, resample_weights

K = 4


def embeddings(items=30, dim=6, seed=0, names=("image", "text", "audio")):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(items, dim))
    return {
        name: shared + (0.5 + 0.3 * m) * rng.normal(size=(items, dim)) + 2 * (m == 1) * np.eye(dim)[0]
        for m, name in enumerate(names)
    }


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def spearman(a, b):
    rank = [np.array([(np.sum(v < w) + np.sum(v <= w) + 1) / 2 for w in v]) for v in (a, b)]
    x, y = (r - r.mean() for r in rank)
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return (x * y).sum() / size if size > 0 else 0.0


def reference(x, y, ids, k=K):
    """Per-item values of each metric, by loops, for rows without ties."""
    x, y = unit(x), unit(y)
    found = {name: [] for name in ("r_f", "r_b", "n_f", "n_b", "neighbors", "rho")}
    for i in range(len(x)):
        for key, scores in (("f", y @ x[i]), ("b", x @ y[i])):
            order = np.argsort(-scores)
            relevant = ids[order] == ids[i]
            found[f"r_{key}"].append(float(relevant[0]))
            gains = sum(1 / np.log2(2 + place) for place in np.flatnonzero(relevant[:k]))
            ideal = sum(1 / np.log2(2 + place) for place in range(min(k, relevant.sum())))
            found[f"n_{key}"].append(gains / ideal)
        others = np.flatnonzero(ids != ids[i])
        a, b = x[others] @ x[i], y[others] @ y[i]
        places = min(k, len(others))
        found["neighbors"].append(len({*np.argsort(-a)[:places]} & {*np.argsort(-b)[:places]}) / places)
        found["rho"].append(spearman(a, b))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("shared_ids", [False, True])
def test_all_metrics_equal_loops(shared_ids):
    z = embeddings()
    ids = np.arange(30)
    if shared_ids:
        ids[[3, 8, 9]] = 2
    result = omni(z, ids=ids, k=K, resamples=100)
    assert set(result.pairs) == {"image-text", "image-audio", "text-audio"}
    for (a, x), (b, y) in itertools.combinations(z.items(), 2):
        pair, expected = result.pairs[f"{a}-{b}"], reference(x, y, ids)
        assert (pair.first, pair.second, pair.items) == (a, b, 30)
        values = {name: interval.estimate for name, interval in pair.metrics.items()}
        means = {
            "recall@1_forward": expected["r_f"].mean(),
            "recall@1_backward": expected["r_b"].mean(),
            "ndcg_forward": expected["n_f"].mean(),
            "ndcg_backward": expected["n_b"].mean(),
            "asymmetry_recall@1": (expected["r_f"] - expected["r_b"]).mean(),
            "asymmetry": (expected["n_f"] - expected["n_b"]).mean(),
            "neighbor_agreement": expected["neighbors"].mean(),
            "rank_correlation": expected["rho"].mean(),
            "gap": np.linalg.norm(unit(x).mean(0) - unit(y).mean(0)),
            "gap_debiased": float(modality_gap_debiased(x, y)),
        }
        for name, value in means.items():
            assert values[name] == pytest.approx(value, abs=1e-12), name
        drawn = mixed_pool({a: x, b: y}, ids=ids, k=K, seeds=(0, 1, 2, 3)).overall
        for name in ("balanced", "own", "cross", "share"):
            assert values[f"mixed_{name}"] == pytest.approx(getattr(drawn, name), abs=1e-12)
    mean = np.mean([pair.metrics["ndcg_forward"].estimate for pair in result.pairs.values()])
    assert result.overall["ndcg_forward"].estimate == pytest.approx(mean, abs=1e-12)
    assert "asymmetry" not in result.overall


def test_equal_modalities_agree_fully():
    z = embeddings()["image"]
    pair = omni({"a": z, "b": z.copy()}, k=K, resamples=100).pairs["a-b"]
    for name in ("recall@1_forward", "ndcg_backward", "neighbor_agreement", "rank_correlation"):
        assert pair.metrics[name].estimate == pytest.approx(1, abs=1e-12)
    for name in ("asymmetry", "gap", "gap_debiased"):
        assert pair.metrics[name].estimate == pytest.approx(0, abs=1e-12)
    assert pair.p == 1


def test_a_collapsed_modality_is_at_chance():
    items = 21
    z = {"a": np.ones((items, 3)), "b": np.random.default_rng(0).normal(size=(items, 3))}
    pair = omni(z, k=K, resamples=100).pairs["a-b"]
    assert pair.chance["neighbor_agreement"] == pytest.approx(K / (items - 1))
    assert pair.metrics["neighbor_agreement"].estimate == pytest.approx(K / (items - 1), abs=1e-12)
    assert pair.metrics["rank_correlation"].estimate == 0
    assert pair.chance["recall@1_forward"] == pytest.approx(1 / items)
    assert pair.metrics["recall@1_backward"].estimate == pytest.approx(1 / items, abs=1e-12)


def test_tied_neighbors_and_ranks_count_by_chance():
    """The mean over all orders of tied items equals the closed form."""
    from unialign.evaluation._agreement import average_ranks, membership

    scores = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.1, 0.7]], dtype=torch.float64)
    candidate = torch.tensor([[True, True, True, True, True, False]])
    found = membership(scores, candidate, torch.tensor([3]))
    assert torch.allclose(found, torch.tensor([[1, 2 / 3, 2 / 3, 2 / 3, 0, 0]], dtype=torch.float64))
    ranks = average_ranks(scores, candidate)
    assert ranks[0, :5].tolist() == [5, 3, 3, 3, 1]
    # Differences below the tolerance are ties.
    noisy = scores + 1e-14 * torch.arange(6)
    assert torch.allclose(membership(noisy, candidate, torch.tensor([3])), found)
    assert average_ranks(noisy, candidate)[0, :5].tolist() == [5, 3, 3, 3, 1]


def test_pools():
    z = embeddings()
    present = {"text": np.arange(30) % 3 != 0, "audio": np.arange(30) % 2 == 0}
    for name, mask in present.items():
        z[name][~mask] = np.nan
    both = present["text"] & present["audio"]
    shared = omni(z, present=present, k=K, resamples=100)
    only = omni({name: rows[both] for name, rows in z.items()}, k=K, resamples=100)
    for name, pair in shared.pairs.items():
        assert pair.items == both.sum()
        for metric, interval in pair.metrics.items():
            assert interval.estimate == pytest.approx(only.pairs[name].metrics[metric].estimate, abs=1e-12), metric
    assert set(shared.pairs) == {"image-text", "image-audio", "text-audio"}
    each = omni(z, present=present, k=K, resamples=100, pool="pair")
    counts = {"image-text": 20, "image-audio": 15, "text-audio": int(both.sum())}
    assert {name: pair.items for name, pair in each.pairs.items()} == counts
    rows = present["text"]
    two = omni({name: z[name][rows] for name in ("image", "text")}, k=K, resamples=100).pairs["image-text"]
    for metric, interval in each.pairs["image-text"].metrics.items():
        assert interval.estimate == pytest.approx(two.metrics[metric].estimate, abs=1e-12), metric


def test_intervals_resample_the_items_of_the_pool():
    """Compare with loops over the shared resamples of all items, of which the pool is a part."""
    z = embeddings()
    present = np.arange(30) % 3 != 0
    found = omni(z, present={"text": present}, k=K, resamples=200, seed=4, pool="pair").pairs["image-text"]
    pool = np.flatnonzero(present)
    weights = resample_weights(30, resamples=200, seed=4).numpy()[:, pool]
    x, y = (unit(z[name][pool]) for name in ("image", "text"))
    expected = reference(x, y, np.arange(len(pool)))
    drawn = mixed_pool({"image": x, "text": y}, k=K, seeds=(0, 1, 2, 3)).overall
    values = {
        "ndcg_forward": weights @ expected["n_f"] / weights.sum(1),
        "asymmetry": weights @ (expected["n_f"] - expected["n_b"]) / weights.sum(1),
        "gap": np.linalg.norm(weights @ (x - y) / weights.sum(1)[:, None], axis=1),
        "mixed_share": drawn.resample(torch.from_numpy(weights))["share"].numpy(),
    }
    for name, of_resamples in values.items():
        estimate = found.metrics[name].estimate
        bounds = np.quantile(of_resamples - of_resamples.mean() + estimate, [0.025, 0.975])
        assert np.allclose([*found.metrics[name]], bounds, atol=1e-10), name


def test_the_asymmetry_is_paired_by_item():
    z = embeddings(items=60, seed=3)
    result = omni({name: z[name] for name in ("image", "text")}, k=K, resamples=4000)
    pair = result.pairs["image-text"]
    expected = reference(z["image"], z["text"], np.arange(60))
    difference = expected["n_f"] - expected["n_b"]
    draws = np.random.default_rng(0).integers(60, size=(4000, 60))
    bounds = np.quantile(difference[draws].mean(1), [0.025, 0.975])
    assert np.allclose([*pair.metrics["asymmetry"]], bounds, atol=0.01)
    forward = np.quantile(expected["n_f"][draws].mean(1), [0.025, 0.975])
    assert np.allclose([*pair.metrics["ndcg_forward"]], forward, atol=0.01)
    assert 0 < pair.p <= 1
    assert pair.p_holm == pair.p
    # The reverse order of the modalities gives the opposite sign and the same p-value.
    reverse = omni({name: z[name] for name in ("text", "image")}, k=K, resamples=4000).pairs["text-image"]
    assert reverse.metrics["asymmetry"].estimate == pytest.approx(-pair.metrics["asymmetry"].estimate, abs=1e-12)
    assert reverse.p == pytest.approx(pair.p, abs=0.02)


def test_a_hub_makes_a_direction_worse_and_is_significant():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8))
    y = x + 1.0 * rng.normal(size=(200, 8))
    # The first rows of y are near to all queries, so only x -> y suffers.
    y[:20] = 4 * unit(x).mean(0) + 0.02 * y[:20] + np.ones(8)
    x = x + 2 * np.ones(8)
    result = omni({"x": x, "y": y + 2 * np.ones(8)}, resamples=500)
    pair = result.pairs["x-y"]
    assert pair.metrics["asymmetry"].estimate < 0
    assert pair.p_holm < 0.05
    assert "y -> x" in result.answer()


def test_groups_of_items_widen_intervals():
    z = {name: np.repeat(rows, 4, axis=0) + 1e-3 * np.random.default_rng(1).normal(size=(120, 6)) for name, rows in
         embeddings(names=("image", "text")).items()}  # fmt: skip
    groups = np.repeat(np.arange(30), 4)
    alone, together = (omni(z, k=K, groups=g, resamples=500).pairs["image-text"] for g in (None, groups))
    widths = [
        pair.metrics["rank_correlation"].high - pair.metrics["rank_correlation"].low for pair in (alone, together)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_stores_and_samples():
    z = embeddings(items=50)
    split = np.where(np.arange(50) % 5 == 0, "train", "test")
    store = EmbeddingStore.from_arrays(z, split=split)
    rows = np.flatnonzero(split == "test")
    found = omni(store, k=K, resamples=100)
    expected = omni({name: x[rows] for name, x in z.items()}, k=K, resamples=100)
    assert found.to_dict() == expected.to_dict()
    drawn = omni(store, k=K, resamples=100, sample=20)
    assert drawn.items == 20
    assert omni(store, k=K, resamples=100, sample=20, seed=0).to_dict() == drawn.to_dict()
    assert omni(store, k=K, resamples=100, sample=999).to_dict() == found.to_dict()


def test_output():
    result = omni(embeddings(), k=K, resamples=100)
    text = result.text()
    assert "image -> text" in text
    assert "NDCG@4" in text
    values = result.to_dict()
    for pair in values["pairs"].values():
        assert set(pair["metrics"]) == set(values["metrics"])
        for metric in pair["metrics"].values():
            assert metric["low"] <= metric["mean"] <= metric["high"]
    assert "<table>" in result._repr_html_()


def test_invalid_input():
    z = embeddings()
    store = EmbeddingStore.from_arrays(z)
    bad = {**z, "text": np.full((30, 6), np.nan)}
    cases = [
        (z, {"pool": "all"}, ConfigError, "unknown pool 'all'"),
        (z, {"k": 0}, ConfigError, "k must be"),
        (z, {"sample": 5}, ConfigError, "require an EmbeddingStore"),
        (store, {"ids": np.arange(30)}, ConfigError, "omit `present` and `ids`"),
        (store, {"sample": 1}, ConfigError, "sample must be"),
        (bad, {}, NonFiniteError, "'text' row 0"),
        ({"image": z["image"]}, {}, ShapeError, "modalit"),
        (z, {"groups": np.arange(3)}, ShapeError, "groups"),
        ({name: rows[:2] for name, rows in z.items()}, {}, DataError, "2 items have image, text and audio"),
        (z, {"present": {"text": np.arange(30) < 1}, "pool": "pair"}, DataError, "1 items have image and text"),
    ]
    for given, options, error, message in cases:
        with pytest.raises(error, match=message):
            omni(given, **options)
