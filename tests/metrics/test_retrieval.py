"""Compare retrieval metrics with brute force over all orders of ties, and test ties, NaN and negative scores."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

import unialign.metrics._ranks as ranks_module
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.metrics import Interval, retrieval, retrieval_from_scores


def rows(n, d=8, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def metrics_of_order(relevant, ks):
    places = [i + 1 for i, r in enumerate(relevant) if r]
    ap = sum((n + 1) / place for n, place in enumerate(places)) / len(places)
    ideal = sum(1 / np.log2(1 + i) for i in range(1, len(places) + 1))
    ndcg = sum(1 / np.log2(1 + place) for place in places) / ideal
    return np.array([places[0], 1 / places[0], ap, ndcg, *(float(places[0] <= k) for k in ks)])


def brute(scores, relevant, ties, ks):
    if ties != "expected":
        sign = -1 if ties == "optimistic" else 1
        order = sorted(range(len(scores)), key=lambda j: (-scores[j], sign * relevant[j]))
        return metrics_of_order([relevant[j] for j in order], ks)
    blocks = [[j for j, s in enumerate(scores) if s == level] for level in sorted(set(scores), reverse=True)]
    orders = itertools.product(*(itertools.permutations(block) for block in blocks))
    return np.mean([metrics_of_order([relevant[j] for block in order for j in block], ks) for order in orders], axis=0)


def found(result, ks):
    values = [result.ranks, result.reciprocal_ranks, result.average_precision, result.ndcg_scores]
    return torch.stack(values + [result.hits(k) for k in ks], 1).numpy()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ties=st.sampled_from(["expected", "optimistic", "pessimistic"]), batch_size=st.integers(1, 5))
def test_equals_brute_force_over_all_orders_of_ties(data, ties, batch_size):
    queries, gallery = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    ks = (1, 2, 4, 9)
    scores = data.draw(st.lists(st.lists(st.integers(-1, 1), min_size=gallery, max_size=gallery), min_size=queries,
                                max_size=queries))  # fmt: skip
    gallery_ids = data.draw(st.lists(st.integers(0, 2), min_size=gallery, max_size=gallery))
    query_ids = [data.draw(st.sampled_from(gallery_ids)) for _ in range(queries)]
    score_QG = torch.tensor(scores, dtype=torch.float64)
    result = retrieval_from_scores(
        lambda r: score_QG[r], queries=queries, gallery=gallery, query_ids=query_ids, gallery_ids=gallery_ids, k=ks,
        ties=ties, batch_size=batch_size,
    )  # fmt: skip
    expected = [brute(s, [g == q for g in gallery_ids], ties, ks) for s, q in zip(scores, query_ids, strict=True)]
    np.testing.assert_allclose(found(result, ks), np.array(expected), rtol=1e-12)
    if ties == "expected":
        p_ranks = [brute(s, [g == q for g in gallery_ids], ties, ks)[0] for s, q in zip(scores, query_ids, strict=True)]
        np.testing.assert_allclose(result.ranks.numpy(), p_ranks, rtol=1e-12)


def test_expected_rank_of_several_tied_positives():
    """Among four tied candidates, two positives have the expected best rank 1 + 2 / 3, and a single one has 2.5."""
    for positives, rank in ((2, 1 + 2 / 3), (1, 2.5)):
        gallery_ids = [0] * positives + [1] * (4 - positives)
        result = retrieval_from_scores(
            lambda r: torch.zeros(len(r), 4), queries=1, gallery=4, query_ids=[0], gallery_ids=gallery_ids
        )
        assert result.ranks.tolist() == [pytest.approx(rank, rel=1e-12)]


def test_equals_scikit_learn_without_and_with_ties():
    rng = np.random.default_rng(0)
    gallery_ids, query_ids = rng.integers(0, 12, 200), rng.integers(0, 12, 50)
    relevant = query_ids[:, None] == gallery_ids
    continuous, tied = rng.standard_normal((50, 200)), rng.integers(0, 9, (50, 200)).astype(float)
    for scores in (continuous, tied):
        table = torch.from_numpy(scores)
        result = retrieval_from_scores(
            lambda r, table=table: table[r], queries=50, gallery=200, query_ids=query_ids, gallery_ids=gallery_ids
        )
        # scikit-learn averages nDCG over ties, like this library, but not average precision.
        assert result.ndcg == pytest.approx(ndcg_score(relevant, scores), abs=1e-12)
        if scores is continuous:
            wanted = np.mean([average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)])
            assert result.map == pytest.approx(wanted, abs=1e-12)


def test_row_i_is_the_positive_of_query_i_by_default():
    x = rows(40)
    result = retrieval(x, x + 0.3 * rows(40, seed=1))
    same = retrieval(x, x + 0.3 * rows(40, seed=1), query_ids=np.arange(40) + 7, gallery_ids=torch.arange(40) + 7)
    order = (torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x + 0.3 * rows(40, seed=1)).T).argsort(
        1, descending=True
    )
    place = (order == torch.arange(40)[:, None]).int().argmax(1) + 1
    torch.testing.assert_close(result.ranks, place.double())
    torch.testing.assert_close(result.ranks, same.ranks)
    assert result.recall == {k: pytest.approx(float((place <= k).double().mean())) for k in (1, 5, 10)}
    assert result.mrr == pytest.approx(float((1 / place.double()).mean()))
    assert result.map == pytest.approx(result.mrr)
    assert result.median_rank == float(np.median(place))
    torch.testing.assert_close(result.ndcg_scores, 1 / torch.log2(1 + place.double()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1.0, 0.3])
def test_collapsed_spaces_score_at_chance_level(dtype, value):
    """Breaking ties by index would make the scores of constant embeddings depend on the order of rows."""
    n = 97
    direction = (value * torch.sin(torch.arange(1, 66, dtype=torch.float64))).to(dtype)
    for ids in (None, torch.arange(n).flip(0)):
        result = retrieval(direction.expand(n, -1), direction.expand(n, -1), query_ids=ids, gallery_ids=ids, k=(1, 10))
        assert result.recall[1] == pytest.approx(1 / n, rel=1e-12)
        assert result.recall[10] == pytest.approx(10 / n, rel=1e-12)
        assert result.median_rank == (n + 1) / 2
        assert result.mrr == pytest.approx(np.mean(1 / np.arange(1, n + 1)), rel=1e-12)


@pytest.mark.parametrize("gallery", [3, 64, 97, 1000, 1031])
def test_identical_gallery_rows_are_tied(gallery):
    """Blocked matrix products may round equal rows differently, but their scores must be tied."""
    row = rows(1, 333, seed=3)
    other = -row + 0.1 * rows(1, 333, seed=4)
    bank = row.repeat(gallery, 1)
    bank[1] = other
    result = retrieval(rows(gallery, 333, seed=5) * 0.5 + row, bank, ties="pessimistic", batch_size=7)
    assert result.ranks[torch.arange(gallery) != 1].unique().tolist() == [gallery - 1]


def test_nan_queries_raise():
    """Since comparisons with NaN are false, counting `scores > best` would give NaN rows a recall@1 of 100 %."""
    x = rows(50)
    bad = x.clone()
    bad[3, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"'queries' row 3 holds nan at column 2"):
        retrieval(bad, x)
    bad[3] = 0.0
    with pytest.raises(NonFiniteError, match=r"'gallery' row 3 has norm zero"):
        retrieval(x, bad)
    bad[4, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"1 more such rows"):
        retrieval(x, bad)
    with pytest.raises(NonFiniteError, match="query 1 with gallery row 0"):
        retrieval_from_scores(lambda r: torch.tensor([[1.0, 2.0], [torch.nan, 0.0]])[r], queries=2, gallery=2)


def test_negative_cosines_count():
    """A first hit with a negative cosine has recall@1 = 1; another library ignores scores of at most 0."""
    query = torch.tensor([[1.0, 0.0]])
    gallery = torch.tensor([[-0.1, 1.0], [-0.9, 0.1]])
    result = retrieval(query, gallery, query_ids=[0], gallery_ids=[0, 1])
    assert result.recall[1] == result.mrr == result.map == result.ndcg == 1.0


def test_batch_size_and_order_of_rows_do_not_matter(monkeypatch):
    x, y = rows(60), rows(60) + rows(60, seed=1)
    labels = torch.arange(60) % 9
    options = {"query_ids": labels, "gallery_ids": labels}
    whole = retrieval(x, y, **options)
    ks = (1, 3, 10)
    for batch_size in (1, 7, 60, 61):
        np.testing.assert_array_equal(found(retrieval(x, y, **options, batch_size=batch_size), ks), found(whole, ks))
    monkeypatch.setattr(ranks_module, "_TILE", 100)
    np.testing.assert_array_equal(found(retrieval(x, y, **options), ks), found(whole, ks))
    q, g = torch.randperm(60, generator=torch.Generator().manual_seed(0)), torch.arange(60).flip(0)
    moved = retrieval(x[q], y[g], query_ids=labels[q], gallery_ids=labels[g])
    np.testing.assert_allclose(found(moved, ks), found(whole, ks)[q.numpy()], rtol=1e-13)


def test_scale_of_rows_does_not_matter():
    x, y = rows(30), rows(30, seed=1) + rows(30)
    scale = torch.logspace(-150, 150, 30, dtype=torch.float64)[:, None]
    torch.testing.assert_close(retrieval(x * scale, y / scale).ranks, retrieval(x, y).ranks)


def test_numpy_half_precision_and_gradients_are_accepted():
    x, y = rows(20, dtype=torch.float32), rows(20, seed=1, dtype=torch.float32)
    wanted = retrieval(x.half(), y.half())
    assert retrieval(x.half().numpy(), y.half().numpy()).recall == wanted.recall
    result = retrieval(x.half().requires_grad_(), y.half().requires_grad_())
    assert not result.ranks.requires_grad
    assert result.recall == wanted.recall


def test_queries_without_positive_are_excluded_and_counted():
    x = torch.eye(4)
    result = retrieval(x, x[1:], query_ids=["a", "b", "c", "d"], gallery_ids=["b", "c", "d"])
    assert result.queries_without_positive == 1
    assert result.rows.tolist() == [1, 2, 3]
    assert result.recall[1] == 1.0
    assert result.interval(groups=["g", "g", "h", "h"]).low == 1.0
    with pytest.raises(DataError, match="none of the 4 queries"):
        retrieval(x, x, query_ids=[0, 1, 2, 3], gallery_ids=[4, 5, 6, 7])


def test_k_above_the_gallery_size():
    x = rows(4)
    assert retrieval(x, -x, k=(4, 1000)).recall == {4: 1.0, 1000: 1.0}


def test_infinite_scores_exclude_a_candidate():
    table = torch.tensor([[-torch.inf, 1.0, 0.0], [0.0, -torch.inf, -torch.inf]])
    result = retrieval_from_scores(lambda r: table[r], queries=2, gallery=3, query_ids=[0, 1], gallery_ids=[1, 0, 1])
    assert result.ranks.tolist() == [1.0, 1.0]
    assert result.average_precision.tolist() == pytest.approx([1.0, (1 + (2 / 2 + 2 / 3) / 2) / 2])


def test_errors_name_the_cause():
    for call, error, text in [
        (lambda x: retrieval(x, x[:3]), ShapeError, "4 queries and 3 gallery rows"),
        (lambda x: retrieval(x, x[:, :3]), ShapeError, "'queries' have dim 8, 'gallery' has dim 3"),
        (lambda x: retrieval(x[:0], x[:0]), ShapeError, r"\(0, 8\)"),
        (lambda x: retrieval(x[0], x), ShapeError, r"\(8,\)"),
        (lambda x: retrieval(x.long(), x), ShapeError, "int64"),
        (lambda x: retrieval(x, x, query_ids=[0, 1, 2, 3]), ConfigError, "query_ids without gallery_ids"),
        (lambda x: retrieval(x, x, query_ids=[0, 1], gallery_ids=[0, 1]), ShapeError, r"shape \(4,\)"),
        (lambda x: retrieval(x, x, query_ids=x[:, 0], gallery_ids=x[:, 0]), ShapeError, "query_ids is float64"),
        (lambda x: retrieval(x, x, query_ids=list("abcd"), gallery_ids=[0, 1, 2, 3]), ShapeError, "both text"),
        (lambda x: retrieval(x, x, ties="random"), ConfigError, "'random'"),
        (lambda x: retrieval(x, x, k=(0,)), ConfigError, "positive integers"),
        (lambda x: retrieval(x, x, batch_size=0), ConfigError, "batch_size"),
        (lambda x: retrieval(x, x).interval("recall@x"), ConfigError, "recall@x"),
        (lambda x: retrieval(x, x).interval(level=1.0), ConfigError, "level"),
        (lambda x: retrieval(x, x).interval(resamples=0), ConfigError, "resamples"),
        (lambda x: retrieval_from_scores(lambda r: x[r], queries=4, gallery=4), ShapeError, r"\(4, 8\)"),
    ]:
        with pytest.raises(error, match=text):
            call(rows(4))


def test_interval_contains_the_estimate_and_is_reproducible():
    for metric in ["recall@1", "recall@7", "mrr", "map", "ndcg", "median_rank"]:
        x = rows(80)
        result = retrieval(x, x + 1.5 * rows(80, seed=1))
        interval = result.interval(metric)
        assert isinstance(interval, Interval)
        low, high = interval
        assert low < interval.estimate < high
        assert result.interval(metric) == interval
        if metric != "median_rank":  # The bounds are integers and may be equal.
            assert result.interval(metric, seed=1) != interval
        shown = {"mrr": result.mrr, "map": result.map, "ndcg": result.ndcg, "median_rank": result.median_rank}
        wanted = shown.get(metric)
        assert interval.estimate == pytest.approx(
            float(result.hits(int(metric[-1])).mean()) if wanted is None else wanted
        )


def test_interval_over_groups_is_wider_when_groups_agree():
    x = rows(20).repeat_interleave(10, 0)
    y = (rows(20) + 1.2 * rows(20, seed=1)).repeat_interleave(10, 0)
    groups = torch.arange(20).repeat_interleave(10)
    result = retrieval(x, y, query_ids=groups, gallery_ids=groups)
    alone, together = result.interval(), result.interval(groups=groups)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_repr_shows_the_metrics():
    shown = repr(retrieval(torch.eye(3), torch.eye(3), k=(1,)))
    assert shown.startswith("RetrievalResult(recall@1=1.0000, median_rank=1, mrr=1.0000")
    assert shown.endswith("queries=3, gallery=3)")
