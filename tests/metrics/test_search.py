"""Test that rounding in float32 products does not change ranks and neighbors, by comparison with float64."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

import unialign.ops._search as module
import unialign.ops._tiles as tiles_module
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.metrics import KNNResult, knn, retrieval, retrieval_from_scores
from unialign.ops import UnitRows, unit_rows


def draw(rows, dim=16, seed=0, dtype=torch.float64):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def in_float64(x, y, **options):
    unit_x, unit_y = unit_rows(x, "x"), unit_rows(y, "y")
    return retrieval_from_scores(lambda r: unit_x[r] @ unit_y.mT, queries=len(x), gallery=len(y), **options)


def assert_same(result, wanted):
    for name in ("rows", "ranks", "reciprocal_ranks", "average_precision", "ndcg_scores"):
        torch.testing.assert_close(getattr(result, name), getattr(wanted, name), rtol=0, atol=0, msg=name)
    assert (result.queries_without_positive, result.recall) == (wanted.queries_without_positive, wanted.recall)


def sorted_by_definition(x, y, k):
    scores, rows = [], []
    for cosine_G in (unit_rows(x, "x") @ unit_rows(y, "y").mT).tolist():
        order = sorted(range(len(cosine_G)), key=lambda j: -cosine_G[j])
        blocks = [[order[0]]]
        for before, j in itertools.pairwise(order):
            if cosine_G[before] - cosine_G[j] > 1e-12:
                blocks.append([])
            blocks[-1].append(j)
        rows.append([j for block in blocks for j in sorted(block)][:k])
        scores.append([cosine_G[j] for j in rows[-1]])
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(rows)


def assert_nearest(x, y, k, **options):
    scores_Qk, rows_Qk = knn(x, y, k=k, **options)
    wanted_Qk, wanted_rows_Qk = sorted_by_definition(x, y, k)
    torch.testing.assert_close(rows_Qk, wanted_rows_Qk, rtol=0, atol=0)
    torch.testing.assert_close(scores_Qk, wanted_Qk, rtol=0, atol=1e-14)


def hard_spaces():
    x, y = draw(700), draw(700, seed=1) + draw(700)
    near = draw(1, 64, seed=2).repeat(700, 1)
    scale = torch.logspace(-150, 150, 700, dtype=torch.float64)[:, None]
    zeros = torch.where(draw(700, seed=7) > 0.5, y, torch.where(draw(700, seed=8) > 0, 0.0, -0.0))
    return {
        "plain": (x, y),
        "float32": (x.float(), y.float()),
        "half": (x.half(), y.half()),
        "near ties at 1e-8": (near + draw(700, 64, 3), near + 1e-8 * draw(700, 64, 4)),
        "near ties at 1e-6, some exact": (x.round() + 0.1, (y.round() + 1e-6 * draw(700, seed=5)).round(decimals=6)),
        "duplicates": (x, y[torch.arange(700) % 9]),
        "equal directions of other lengths": (x, y[torch.arange(700) % 40] * (1 + torch.arange(700) % 7)[:, None] / 3),
        "one point": (x, torch.ones(700, 16) * 0.3),
        "signed zeros": (torch.sign(x), zeros + 1e-3),
        "few levels": (torch.sign(x), torch.sign(y)),
        "big and small norms": (x * scale, y / scale),
        "norms near the ends of float32": ((x * 1e30).float(), (y * 1e-30).float()),
    }


@pytest.mark.parametrize("name", hard_spaces())
def test_ranks_equal_those_of_float64(name):
    x, y = hard_spaces()[name]
    for ties in ("expected", "optimistic", "pessimistic"):
        assert_same(retrieval(x, y, ties=ties), in_float64(x, y, ties=ties))
    assert_same(retrieval(x, y, batch_size=97), in_float64(x, y))


@pytest.mark.parametrize("name", hard_spaces())
def test_neighbors_equal_a_sort_in_float64(name):
    x, y = hard_spaces()[name]
    for k in (1, 10, 699):
        assert_nearest(x[:40], y, k)
    assert_nearest(x[:40], y, 5, batch_size=7)


def test_float32_scores_give_wrong_ranks():
    """Without the margin for rounding errors, more than 100 of 700 ranks would be wrong."""
    x, y = hard_spaces()["near ties at 1e-8"]
    score_QG = normalize(x.float()) @ normalize(y.float()).mT
    naive = 1 + (score_QG > score_QG.diagonal()[:, None]).sum(1)
    assert int((naive != retrieval(x, y, ties="optimistic").ranks).sum()) > 100


@settings(max_examples=60, deadline=None)
@given(
    queries=st.integers(1, 40),
    gallery=st.integers(1, 60),
    levels=st.sampled_from([1, 2, 1000]),
    labels=st.integers(1, 60),
    side=st.sampled_from([1, 7, 512]),
    waiting=st.sampled_from([0, 5, 10**6]),
    dense=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_tiles_and_code_paths_agree(queries, gallery, levels, labels, side, waiting, dense, seed):
    """The cases cover queries with one, several and no positives, and rescoring by pair, batch and tile."""
    x, y = ((levels * draw(n, 3, seed + i)).round() / levels + 1e-3 for i, n in enumerate((queries, gallery)))
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(labels, (n,), generator=generator) for n in (queries, gallery)]
    ids[0][0] = ids[1][0]
    options = {"query_ids": ids[0], "gallery_ids": ids[1]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SIDE", side), ("_MOST_PENDING", waiting), ("_DENSE", dense)):
            patch.setattr(module, name, value)
        assert_same(retrieval(x, y, **options, batch_size=9), in_float64(x, y, **options))
        assert_nearest(x, y, 1 + seed % gallery, batch_size=9)


def test_low_precision_products_do_not_matter():
    """`set_float32_matmul_precision` and autocast allow bfloat16 products, with errors far above the margin."""
    x, y = draw(600, 512, dtype=torch.float32), draw(600, 512, 1, torch.float32)
    wanted, found = in_float64(x, y), knn(x, y, k=9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(retrieval(x, y), wanted)
        assert torch.equal(knn(x, y, k=9).rows, found.rows)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_same(retrieval(x, y), wanted)
        assert torch.equal(knn(x, y, k=9).rows, found.rows)
    finally:
        torch.set_float32_matmul_precision(before)


def test_equal_rows_are_sorted_by_row():
    """The order must not depend on `torch.topk`, which orders equal scores arbitrarily."""
    scores_Qk, rows_Qk = knn(draw(5), draw(1).expand(2000, -1), k=600)
    assert torch.equal(rows_Qk, torch.arange(600).expand(5, -1))
    assert float((scores_Qk - scores_Qk[:, :1]).abs().max()) < 1e-12


def test_a_memory_map_is_read_in_place(tmp_path):
    y = draw(1500, dtype=torch.float32).numpy()
    np.save(tmp_path / "y.npy", y)
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = UnitRows(mapped, "y")
        found = knn(draw(7), mapped, k=4)
    assert rows._raw_ND.data_ptr() == mapped.ctypes.data
    assert isinstance(found, KNNResult)
    assert torch.equal(found.rows, knn(draw(7), y, k=4).rows)
    assert_same(retrieval(y, mapped), retrieval(y, y))


class Largest(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("collapsed", [False, True])
def test_memory_is_linear_and_the_gallery_is_not_copied(collapsed, monkeypatch):
    monkeypatch.setattr(tiles_module, "TILE", 2**15)
    monkeypatch.setattr(module, "TILE", 2**15)
    dim, queries = 64, 300
    x = draw(queries, dim, dtype=torch.float32)
    for gallery in (4000, 8000):
        y = draw(gallery, dim, 1, torch.float32)
        y = y[:1].repeat(gallery, 1) if collapsed else y
        ids = {"query_ids": torch.arange(queries), "gallery_ids": torch.arange(gallery)}
        for name, call in {
            "ranks": lambda y=y, ids=ids: retrieval(x, y, **ids),
            "nearest": lambda y=y: knn(x, y, k=5),
        }.items():
            with Largest() as seen:
                call()
            # Tensors have a few numbers per query, or are tiles of 2^15 entries with up to 16 bytes each.
            assert seen.bytes <= 16 * max(2**15, queries * dim, gallery) + 16 * queries, (name, gallery)
            assert seen.bytes < 4 * gallery * dim
            assert seen.bytes < queries * gallery


def test_errors_name_the_row(monkeypatch):
    monkeypatch.setattr(tiles_module, "TILE", 64)
    x, y = draw(20, 8), draw(90, 8)
    y[71, 3], y[80] = torch.nan, 0.0
    for call in (lambda: knn(x, y, k=1), lambda: retrieval(x, y, query_ids=range(20), gallery_ids=range(90))):
        with pytest.raises(NonFiniteError, match=r"'gallery' row 71 holds nan at column 3.*1 more such rows"):
            call()
    with pytest.raises(NonFiniteError, match=r"'queries' row 2 holds inf"):
        knn(x.index_fill(0, torch.tensor([2]), torch.inf), x, k=1)
    with pytest.raises(NonFiniteError, match=r"'queries' row 2 has norm zero"):
        knn(x.index_fill(0, torch.tensor([2]), 0.0).half(), x, k=1)


def test_errors_name_the_cause():
    for call, error, text in [
        (lambda x: knn(x, x, k=0), ConfigError, "k must be an integer of at least 1"),
        (lambda x: knn(x, x, k=5), ConfigError, "k is 5, but the gallery has only 4 rows"),
        (lambda x: knn(x, x, k=1, batch_size=0), ConfigError, "batch_size"),
        (lambda x: knn(x, x[:, :3], k=1), ShapeError, "'queries' have dim 8, 'gallery' has dim 3"),
        (lambda x: knn(x[0], x, k=1), ShapeError, r"\(8,\)"),
        (lambda x: knn(x, x[:0], k=1), ShapeError, r"\(0, 8\)"),
    ]:
        with pytest.raises(error, match=text):
            call(draw(4, 8))
