"""Candidates of an exact search among trusted rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from unialign.ops import Candidates, product_error, rounded_queries, row_products, score_tiles, trusted_rows


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_candidates_contain_the_k_best_for_any_error_within_the_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, rows, k = int(rng.integers(1, 5)), int(rng.integers(1, 200)), int(rng.integers(1, 30))
    # Rounded scores, so that there are ties and near ties.
    exact = np.round(rng.standard_normal((queries, rows)), int(rng.integers(0, 4)))
    error = rng.random(rows).astype(np.float32) * 10 ** rng.uniform(-6, 0.5)
    noisy = exact + (rng.random((queries, rows)) * 2 - 1) * error * 0.99
    absent = rng.random((queries, rows)) < rng.choice([0, 0.3, 0.9])
    scores = torch.from_numpy(np.where(absent, -np.inf, noisy).astype(np.float32))
    found = Candidates(queries, k)
    cuts = np.unique(np.concatenate([[0, rows], rng.integers(0, rows, 3)]))
    for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        found.add(scores[:, start:end], torch.from_numpy(error[start:end]) + 1e-6, torch.arange(start, end))
    query_C, row_C = found.take()
    for query in range(queries):
        chosen = set(row_C[query_C == query].tolist())
        assert len(chosen) == int((query_C == query).sum())
        present = np.flatnonzero(~absent[query])
        assert chosen <= set(present.tolist())
        best = np.sort(exact[query][present])[::-1][:k]
        # All rows that tie with the k-th are candidates.
        assert {row for row in present.tolist() if len(best) and exact[query, row] >= best[-1]} <= chosen


def test_few_candidates_remain_among_many_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 50_000, generator=generator)
    found = Candidates(3, 10)
    for tile in score_tiles(50_000, 100):
        found.add(scores[:, tile], torch.full((tile.stop - tile.start,), 1e-6), torch.arange(tile.start, tile.stop))
    query_C, row_C = found.take()
    assert sorted(zip(query_C.tolist(), row_C.tolist(), strict=True)) == sorted(
        (query, row) for query in range(3) for row in scores[query].topk(10).indices.tolist()
    )


@pytest.mark.parametrize("queries", [1, 7])
def test_products_are_within_their_bound(queries: int) -> None:
    rng = np.random.default_rng(queries)
    for dim in (1, 3, 64, 1000):
        # Entries of mixed sizes, with cancellation.
        x = rng.standard_normal((queries, dim)) * 10.0 ** rng.integers(-6, 1, dim)
        y = np.concatenate([-x[:1], x[:1], rng.standard_normal((50, dim))]) + 1e-9
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = (y / np.linalg.norm(y, axis=1, keepdims=True)).astype(np.float32)
        got = row_products(rounded_queries(torch.from_numpy(x)), trusted_rows(y)).double().numpy()
        assert got.shape == (queries, len(y))
        assert np.abs(got - x @ y.astype(np.float64).T).max() <= product_error(dim)


def test_lowered_precision_of_products_is_not_used() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    try:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert rounded_queries(torch.ones(1, 4, dtype=torch.float64)).dtype == torch.float64
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert rounded_queries(torch.ones(1, 4, dtype=torch.float64)).dtype == torch.float32


def test_rows_are_views_of_read_only_arrays() -> None:
    rows = np.ones((3, 4), np.float32)
    rows.flags.writeable = False
    assert trusted_rows(rows).data_ptr() == rows.ctypes.data


def test_tiles_cover_all_items_once() -> None:
    for items in (1, 2048, 5000, 300_000):
        for queries in (1, 100):
            tiles = list(score_tiles(items, queries))
            assert [place for tile in tiles for place in (tile.start, tile.stop)][1:-1] == [
                edge for tile in tiles[1:] for edge in (tile.start, tile.start)
            ]
            assert (tiles[0].start, tiles[-1].stop) == (0, items)
