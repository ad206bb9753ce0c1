"""Test AP and nDCG with cut-offs and graded relevance against brute force and trec_eval."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.metrics import retrieval, retrieval_from_counts, retrieval_from_scores

KS = (1, 2, 4, 9)


def of_order(gains, ks):
    """Return average precision and nDCG of a ranked list, without a cut-off and for each cut-off."""
    values = []
    for k in (len(gains), *ks):
        places = [i + 1 for i, g in enumerate(gains[:k]) if g]
        precision = sum((n + 1) / place for n, place in enumerate(places)) / sum(g > 0 for g in gains)
        best = sum(g / np.log2(2 + i) for i, g in enumerate(sorted(gains, reverse=True)[:k]))
        values += [precision, sum(g / np.log2(2 + i) for i, g in enumerate(gains[:k])) / best]
    return np.array(values)


def brute(scores, gains, ties):
    if ties != "expected":
        sign = -1 if ties == "optimistic" else 1
        order = sorted(range(len(scores)), key=lambda j: (-scores[j], sign * gains[j]))
        return of_order([gains[j] for j in order], KS)
    blocks = [[j for j, s in enumerate(scores) if s == level] for level in sorted(set(scores), reverse=True)]
    orders = itertools.product(*(itertools.permutations(block) for block in blocks))
    return np.mean([of_order([gains[j] for block in order for j in block], KS) for order in orders], axis=0)


def found(result):
    names = ["map", "ndcg", *(f"{name}@{k}" for k in KS for name in ("map", "ndcg"))]
    return torch.stack([result.scores(name) for name in names], 1).numpy()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), ties=st.sampled_from(["expected", "optimistic", "pessimistic"]), graded=st.booleans())
def test_equals_brute_force_over_all_orders_of_ties(data, ties, graded):
    queries, gallery = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))

    def table(low, high):
        row = st.lists(st.integers(low, high), min_size=gallery, max_size=gallery)
        return data.draw(st.lists(row, min_size=queries, max_size=queries))

    scores, gains = table(-1, 1), table(0, 3)
    for row in gains:
        row[data.draw(st.integers(0, gallery - 1))] = data.draw(st.integers(1, 3))
    score_QG = torch.tensor(scores, dtype=torch.float64)
    options = {"queries": queries, "gallery": gallery, "k": KS, "ties": ties}
    if graded:
        result = retrieval_from_scores(lambda r: score_QG[r], relevance=gains, batch_size=2, **options)
    else:
        ids = data.draw(st.lists(st.integers(0, 2), min_size=gallery, max_size=gallery))
        own = [data.draw(st.sampled_from(ids)) for _ in range(queries)]
        gains = [[float(g == q) for g in ids] for q in own]
        result = retrieval_from_scores(lambda r: score_QG[r], query_ids=own, gallery_ids=ids, **options)
        same = retrieval_from_scores(lambda r: score_QG[r], relevance=gains, **options)
        torch.testing.assert_close(same.ranks, result.ranks)
        np.testing.assert_allclose(found(same), found(result), rtol=1e-12)
    expected = [brute(s, g, ties) for s, g in zip(scores, gains, strict=True)]
    np.testing.assert_allclose(found(result), np.array(expected), rtol=1e-12, atol=1e-15)
    assert result.map_at == {k: pytest.approx(float(result.scores(f"map@{k}").mean())) for k in KS}
    assert result.ndcg_at == {k: pytest.approx(float(result.scores(f"ndcg@{k}").mean())) for k in KS}


def test_cosines_with_one_and_several_positives():
    """Cut-offs apply to queries with one positive, ranked by counting, and with several, ranked by sorting."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 6, generator=generator), torch.randn(40, 6, generator=generator)
    y[:30] += 0.7 * x
    query_ids, gallery_ids = torch.arange(30), torch.cat([torch.arange(30), torch.arange(0, 30, 3)])
    relevance = (query_ids[:, None] == gallery_ids).int()
    by_ids = retrieval(x, y, query_ids=query_ids, gallery_ids=gallery_ids, k=(1, 3, 10, 3))
    by_table = retrieval(x, y, relevance=relevance, k=(1, 3, 10))
    by_function = retrieval(x, y, relevance=lambda rows: relevance[rows].numpy(), k=(1, 3, 10), batch_size=7)
    for result in (by_table, by_function):
        for name in ("map", "ndcg", "map@3", "ndcg@10", "recall@1", "median_rank", "mrr"):
            torch.testing.assert_close(result.scores(name), by_ids.scores(name))
    assert 0 < by_ids.map_at[1] <= by_ids.map_at[3] <= by_ids.map_at[10] <= by_ids.map
    assert by_ids.interval("ndcg@10").estimate == pytest.approx(by_ids.ndcg_at[10])


def test_counts_of_blocks_give_the_same_cut_offs():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.nn.functional.normalize(torch.randn(n, 6, generator=generator).double(), dim=1) for n in (20, 50))
    y[10:15] = y[9]
    query_ids, gallery_ids = (torch.randint(0, 8, (n,), generator=generator) for n in (20, 50))
    whole = retrieval(x, y, query_ids=query_ids, gallery_ids=gallery_ids, k=(1, 3, 10))
    score_QG = x @ y.T
    query_P, gallery_P = (query_ids[:, None] == gallery_ids).nonzero(as_tuple=True)
    apart_PG = score_QG[query_P] - score_QG[query_P, gallery_P][:, None]
    counts = (apart_PG > 1e-12).sum(1), (apart_PG.abs() <= 1e-12).sum(1)
    pairs = query_P, score_QG[query_P, gallery_P], *counts
    parts = retrieval_from_counts(*pairs, queries=20, gallery=50, k=(1, 3, 10))
    for name in ("map", "ndcg", "map@3", "ndcg@10", "map@1", "ndcg@1", "mrr", "recall@3"):
        torch.testing.assert_close(parts.scores(name), whole.scores(name))


def test_rows_without_relevance_are_excluded_and_counted():
    x = torch.eye(3)
    relevance = torch.tensor([[0, 0, 0], [0, 2, 0], [1, 0, 0]])
    result = retrieval(x, x, relevance=relevance, k=(1,))
    assert result.rows.tolist() == [1, 2]
    assert result.queries_without_positive == 1
    assert result.ndcg_at == {1: 0.5}


def test_invalid_relevance():
    x = torch.eye(3)
    for relevance, error, text in [
        (torch.eye(2), ShapeError, r"relevance has shape \(2, 2\); expected numbers of shape \(3, 3\)"),
        (lambda rows: torch.eye(2), ShapeError, r"shape \(2, 2\)"),
        ("abc", ShapeError, "relevance"),
        (-torch.eye(3), NonFiniteError, "gallery row 0 for query 0 is -1.0"),
        (torch.full((3, 3), torch.nan), NonFiniteError, "is nan"),
        (torch.zeros(3, 3), DataError, "no relevance is above 0"),
    ]:
        with pytest.raises(error, match=text):
            retrieval(x, x, relevance=relevance)
    with pytest.raises(ConfigError, match="give one of them"):
        retrieval(x, x, relevance=torch.eye(3), query_ids=[0, 1, 2], gallery_ids=[0, 1, 2])
    with pytest.raises(ConfigError, match=r"'map@7' needs its cut-off in k; this result has k=\(1, 5, 10\)"):
        retrieval(x, x).scores("map@7")


RELEVANCE = [
    [0, 1, 1, 0, 0, 1, 1, 2, 1, 0, 1, 0],
    [3, 1, 0, 1, 0, 0, 2, 1, 1, 3, 1, 1],
    [1, 2, 3, 0, 0, 2, 0, 3, 1, 1, 2, 0],
    [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0],
]
SCORES = [
    [34, 60, 76, 92, 49, 91, 54, 50, 93, 73, 56, 17],
    [46, 12, 4, 17, 63, 27, 33, 86, 55, 99, 80, 38],
    [53, 64, 49, 73, 44, 68, 74, 52, 29, 43, 87, 3],
    [35, 77, 85, 89, 20, 41, 69, 73, 72, 13, 91, 83],
]
TREC_EVAL = {
    "map": [0.760770975057, 0.887073112073, 0.707278138528, 0.166666666667],
    "map@1": [0.142857142857, 0.111111111111, 0.125, 0.0],
    "map@3": [0.238095238095, 0.333333333333, 0.125, 0.0],
    "map@5": [0.345238095238, 0.422222222222, 0.2625, 0.0],
    "map@10": [0.760770975057, 0.796164021164, 0.616369047619, 0.166666666667],
    "ndcg": [0.762773225904, 0.888019037608, 0.762425887778, 0.356207187108],
    "ndcg@1": [0.5, 1.0, 0.666666666667, 0.0],
    "ndcg@3": [0.47909091486, 0.701014336472, 0.339397849051, 0.0],
    "ndcg@5": [0.488969620793, 0.673259022796, 0.482881526673, 0.0],
    "ndcg@10": [0.762773225904, 0.85322230271, 0.729735422707, 0.356207187108],
    "mrr": [1.0, 1.0, 1.0, 0.166666666667],
    "recall@1": [1.0, 1.0, 1.0, 0.0],
    "recall@5": [1.0, 1.0, 1.0, 0.0],
    "recall@10": [1.0, 1.0, 1.0, 1.0],
}


def test_values_of_trec_eval():
    table = torch.tensor(SCORES, dtype=torch.float64)
    result = retrieval_from_scores(lambda r: table[r], queries=4, gallery=12, relevance=RELEVANCE, k=(1, 3, 5, 10))
    for name, values in TREC_EVAL.items():
        assert result.scores(name).tolist() == pytest.approx(values, abs=1e-11), name
