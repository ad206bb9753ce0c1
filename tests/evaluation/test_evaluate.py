"""Test `evaluate` on spaces with known results."""

import pytest
import torch

import unialign as ua
from unialign.batch import make_batch
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.evaluation import METRICS, joint_retrieval, metric_range, resample


def noisy(items=40, dim=16, modalities=("a", "b", "c"), noise=0.3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(items, dim, generator=draw, dtype=torch.float64)
    return {name: shared + noise * torch.randn(items, dim, generator=draw, dtype=torch.float64) for name in modalities}


def test_a_perfect_space_scores_one_everywhere():
    shared = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    found = ua.evaluate({"a": shared, "b": shared.clone(), "c": shared.clone()}, labels=torch.arange(12) % 3)
    for metric in (
        "recall@1",
        "recall@10",
        "mrr",
        "map",
        "joint_recall@1",
        "to_joint_recall@1/centroid",
        "true_pair_cosine",
    ):
        assert found.metrics[metric] == pytest.approx(1.0), metric
    assert found.metrics["median_rank"] == 1
    assert found.metrics["modality_gap_debiased"] == pytest.approx(0, abs=1e-6)
    assert found.metrics["chi"] == pytest.approx(0, abs=1e-6)


def test_metrics_and_their_descriptions_agree():
    found = ua.evaluate(noisy(), labels=torch.arange(40) % 4)
    assert set(found.metrics) - {"recall@5"} == set(METRICS) - {"recall@5"}
    assert all(torch.isfinite(torch.tensor(value)) for value in found.metrics.values())


def test_recall_is_the_mean_over_ordered_pairs_and_gap_over_unordered_ones():
    z = noisy(noise=1.0)
    found = ua.evaluate(z)
    single = [values["recall@1"] for name, values in found.directions.items() if "+" not in name]
    assert len(single) == 6
    assert found.metrics["recall@1"] == pytest.approx(sum(single) / 6)
    assert found.directions["a->b"]["recall@1"] == pytest.approx(ua.metrics.retrieval(z["a"], z["b"]).recall[1])
    gaps = [float(ua.geometry.modality_gap(z[m], z[n])) for m, n in (("a", "b"), ("a", "c"), ("b", "c"))]
    assert found.metrics["modality_gap"] == pytest.approx(sum(gaps) / 3)


def test_a_collapsed_space_scores_at_chance():
    """Breaking ties by index can give a collapsed model a recall of up to 100 %."""
    point = torch.ones(20, 4)
    found = ua.evaluate({"a": point, "b": point.clone(), "c": point.clone()})
    assert found.metrics["recall@1"] == pytest.approx(1 / 20)
    assert found.metrics["joint_recall@1"] == pytest.approx(1 / 20)
    assert found.metrics["joint_recall@1/volume"] == pytest.approx(1 / 20)


def test_a_missing_modality_removes_no_query_of_other_directions():
    """Dropping items that lack a modality would change the gallery of the other directions."""
    z = noisy(noise=0.8)
    present = {"c": torch.arange(40) % 2 == 0}
    poisoned = {**z, "c": torch.where(present["c"][:, None], z["c"], torch.nan)}
    whole, partial = ua.evaluate(z), ua.evaluate(poisoned, present=present)
    assert partial.directions["a->b"] == whole.directions["a->b"]
    assert partial.directions["a->c"]["queries"] == 20
    assert partial.directions["a->c"]["gallery"] == 20
    assert partial.directions["c->a"]["gallery"] == 40  # Rows without a counterpart remain in the gallery.
    zeros = ua.evaluate({**z, "c": torch.where(present["c"][:, None], z["c"], 0.0)}, present=present)
    assert zeros.metrics == partial.metrics


def test_same_id_items_are_positives_of_each_other():
    z = noisy(items=10, noise=0.0)
    duplicated = {name: torch.cat([rows, rows]) for name, rows in z.items()}
    assert ua.evaluate(duplicated).metrics["recall@1"] == pytest.approx(0.5)
    assert ua.evaluate(duplicated, ids=torch.arange(20) % 10).metrics["recall@1"] == pytest.approx(1.0)


@pytest.mark.parametrize("query", ["others", "target"])
@pytest.mark.parametrize("score", ["cosine", "centroid", "volume"])
def test_joint_scores_equal_brute_force(query, score):
    batch = make_batch(
        noisy(items=9, dim=6, modalities=("a", "b", "c", "d"), noise=1.0), present={"b": torch.arange(9) != 3}
    )
    rows, result = joint_retrieval(batch, 0, query=query, score=score, ids_N=torch.arange(9), k=(1,))
    table = torch.empty(9, 9, dtype=torch.float64)
    for i in range(9):
        others = [batch.z_MBD[m, i] for m in (1, 2, 3) if batch.present_MB[m, i]]
        for j in range(9):
            target = batch.z_MBD[0, j]
            if score == "volume":
                stack = torch.stack([*others, target])
                table[i, j] = -torch.linalg.det(stack @ stack.T)
            elif score == "cosine":
                table[i, j] = torch.stack([other @ target for other in others]).mean()
            else:
                mean = torch.stack(others).sum(0)
                table[i, j] = mean @ target / mean.norm()
    if query == "target":
        table = table.T
    ranks = 1 + (table > table.diagonal()[:, None]).sum(1)
    assert rows.tolist() == list(range(9))
    assert result.ranks.tolist() == ranks.tolist()


def on_circle(*degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_joint_cosine_is_the_mean_over_present_modalities():
    """Division by the number of all other modalities would halve the score of a tuple with one absent modality."""
    embeddings = {"a": on_circle(0, 25), "b": on_circle(53, 25), "c": on_circle(53, 25)}
    batch = make_batch(embeddings, present={"c": torch.tensor([True, False])})
    _, result = joint_retrieval(batch, 0, query="target", score="cosine", ids_N=torch.arange(2), k=(1,))
    assert result.ranks.tolist() == [2, 1]


def test_unlabeled_items_are_candidates_and_not_queries():
    labels = torch.tensor([0, 0, 1, 1, -1])
    far = {"a": on_circle(0, 10, 120, 130, 90), "b": on_circle(0, 10, 120, 130, 200)}
    assert ua.evaluate(far, labels=labels).metrics["label_map"] == pytest.approx(1)
    between = {name: on_circle(0, 10, 120, 130, 125) for name in far}
    expected = (4 * 1 + 4 * (1 + 2 / 3) / 2) / 8
    assert ua.evaluate(between, labels=labels).metrics["label_map"] == pytest.approx(expected)


def test_cosine_and_centroid_rank_alike_for_joint_queries():
    batch = make_batch(noisy(noise=1.5))
    ranks = [
        joint_retrieval(batch, 1, query="others", score=score, ids_N=torch.arange(40), k=(1,))[1].ranks.tolist()
        for score in ("cosine", "centroid")
    ]
    assert ranks[0] == ranks[1]


def test_statistics_with_equal_weights_are_the_metrics():
    found = ua.evaluate(noisy(noise=1.0), labels=torch.arange(40) % 4)
    weights = torch.ones(2, 40, dtype=torch.float64)
    for name, statistic in found.statistics.items():
        assert statistic.evaluate(3 * weights)[1] == pytest.approx(found.metrics[name], abs=1e-9), name


def test_interval_holds_the_estimate_and_shrinks_with_items():
    small, large = (ua.evaluate(noisy(items=n, noise=2.0), labels=torch.arange(n) % 4) for n in (30, 300))
    for metric in ("recall@10", "v_measure", "true_pair_cosine", "label_map"):
        narrow, wide = large.interval(metric, resamples=300), small.interval(metric, resamples=300)
        assert narrow.high - narrow.low < wide.high - wide.low, metric
    assert small.metrics["mrr"] in small.interval("mrr", resamples=300)


def test_intervals_are_clipped_to_the_range_of_the_metric():
    """Regression test: the interval of a recall near 1 reached 1.007, and that of a gap of zero extended below 0."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(120, 8, generator=g)
    found = ua.evaluate({"a": x, "b": x + 0.55 * torch.randn(120, 8, generator=g)}, labels=torch.arange(120) % 4)
    assert 0.9 < found.metrics["recall@10"] < 1
    for metric in found.statistics:
        low, high = found.interval(metric, level=0.999, resamples=300)
        least, most = metric_range(metric)
        assert least <= low <= found.metrics[metric] + 1e-12, metric
        assert found.metrics[metric] - 1e-12 <= high <= most, metric
    resampled = resample(
        {"recall@10": (found.statistics["recall@10"], found.metrics["recall@10"])}, 120, resamples=300
    )["recall@10"]
    assert float(resampled.max()) > 1
    assert found.interval("recall@10", level=0.999, resamples=300).high == 1.0
    assert metric_range("recall@3") == (0, 1)
    assert metric_range("something else") == (-torch.inf, torch.inf)


def test_repr_and_text_are_short():
    """Regression test: the repr included per-item scores and all metrics of every direction."""
    z = noisy(noise=1.0)
    found = ua.evaluate(z, labels=torch.arange(40) % 4)
    assert f"recall@1={found.metrics['recall@1']:.4g}" in repr(found)
    assert "items=40" in repr(found)
    lines = found.text().splitlines()
    assert lines[0].split(maxsplit=1) == ["R@1", f"{100 * found.metrics['recall@1']:.1f} % (chance 2.5 %)"]
    assert [line[:30].strip() for line in lines][6] == "debiased gap (lower is better)"
    legend = lines[lines.index("") + 1 :]
    assert legend[0].startswith("R@1: fraction of queries whose true item ranks first")
    assert len(legend) == lines.index("")
    assert "V-measure" not in ua.evaluate(z).text(), "nothing without labels"
    looks = [
        found,
        ua.geometry.conflict(z, anchor="a"),
        ua.geometry.conflict_over_anchors(z),
        ua.geometry.hubness(z["a"], z["b"]),
        ua.geometry.divergence_profile(z, bandwidths=("median",)),
        ua.metrics.retrieval(z["a"], z["b"]),
    ]
    for look in looks:
        assert repr(look).startswith(type(look).__name__)
        assert "tensor(" not in repr(look)
        assert len(repr(look)) < 300
    assert f"zeta={looks[1].means()['zeta']:.4g}" in repr(looks[1])
    assert "anchor='a'" in repr(looks[1])
    assert f"chi={looks[2].means()['chi']:.4g}" in repr(looks[2])
    assert f"skewness={looks[3].skewness:.3g} (by chance {looks[3].chance_skewness:.3g})" in repr(looks[3])
    assert f"debiased {looks[4].rows[0].values['debiased']:.3g}" in repr(looks[4])


def test_uniformity_and_item_order():
    z = noisy()
    found = ua.evaluate(z)
    expected = sum(float(ua.functional.uniformity(rows, kernel="wang_isola")) for rows in z.values()) / 3
    assert found.metrics["uniformity"] == pytest.approx(expected)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    shuffled = ua.evaluate({name: rows[order] for name, rows in z.items()})
    for name, value in shuffled.metrics.items():
        assert value == pytest.approx(found.metrics[name], abs=1e-9), name


def test_invalid_input_raises():
    z = noisy()
    with pytest.raises(NonFiniteError, match="'b' row 3"):
        ua.evaluate({**z, "b": z["b"].index_fill(0, torch.tensor([3]), torch.nan)})
    with pytest.raises(ConfigError, match="'z' is not a modality"):
        ua.evaluate(z, anchor="z")
    with pytest.raises(DataError, match="share an item"):
        ua.evaluate({"a": z["a"], "b": z["b"]}, present={"a": torch.arange(40) < 20, "b": torch.arange(40) >= 20})
    with pytest.raises(ConfigError, match="unknown metric"):
        ua.evaluate(z).interval("accuracy")


def test_chance_is_the_recall_of_unrelated_rows():
    """Chance, also with ids and missing rows, equals the mean R@1 of random spaces and the R@1 of a collapsed space."""
    items, ids = 24, torch.arange(24) // torch.tensor([1, 2]).repeat(12)
    present = {"b": torch.arange(items) % 3 > 0}
    generator, names = torch.Generator().manual_seed(0), ("a", "b", "c")
    same = ua.evaluate(dict.fromkeys(names, torch.ones(items, 4)), present=present, ids=ids)
    for metric in ("recall@1", "joint_recall@1"):
        assert same.chance[metric] == pytest.approx(same.metrics[metric], abs=1e-12)
    drawn = [
        ua.evaluate({m: torch.randn(items, 8, generator=generator) for m in names}, present=present, ids=ids)
        for _ in range(20)
    ]
    mean = sum(found.metrics["recall@1"] for found in drawn) / len(drawn)
    assert abs(mean - drawn[0].chance["recall@1"]) < 0.01
    assert ua.evaluate({m: torch.eye(5) for m in "ab"}).chance == {"recall@1": pytest.approx(0.2)}
