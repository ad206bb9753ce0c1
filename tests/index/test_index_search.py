"""Results of a search are those of a search in float64, item by item."""

import itertools
import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import unialign as ua
from tests.index_cases import METHODS, NAMES, Items, build, correction_of, draw_items, stored, unit_rows
from tests.reference import index_search as reference
from unialign.errors import ConfigError
from unialign.index import Index
from unialign.index._calibration import Calibration, uncorrected
from unialign.index._query_vectors import query_vectors
from unialign.index._scan import Scan
from unialign.index._scores import tile_scores
from unialign.index._storage import Storage


def check(
    found: Any, expected: list[tuple[tuple[str, str], float]], k: int, *, tolerance: float, rows: bool = False
) -> None:
    assert len(found) == min(k, len(expected))
    got = [((hit.key, hit.modality if rows else ""), hit.score) for hit in found]
    np.testing.assert_allclose([s for _, s in got], [s for _, s in expected[: len(got)]], rtol=0, atol=tolerance)
    if tolerance <= 1e-11:
        assert [key for key, _ in got] == [key for key, _ in expected[: len(got)]]
    scores = dict(expected)
    for key, score in got:
        assert abs(scores[key] - score) <= tolerance


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    method=st.sampled_from(METHODS),
    target=st.sampled_from(["any", "best", "image", ["text", "audio"]]),
    fuse=st.sampled_from(["mean", "max", "rrf"]),
    unit=st.sampled_from(["item", "row"]),
)
def test_search_equals_brute_force(seed: int, method: str, target: Any, fuse: str, unit: str) -> None:
    rng = np.random.default_rng(seed)
    dim, count = int(rng.integers(2, 20)), int(rng.integers(1, 60))
    items = draw_items(rng, count, dim)
    correction = correction_of(method, rng, dim)
    gone = [key for key in items if rng.random() < 0.2][: count - 1]
    index = build(items, correction, parts=int(rng.integers(1, min(count, 3) + 1)), deleted=gone)
    living = stored(index)
    assert set(living) == set(items) - set(gone)
    k = int(rng.integers(1, 80))
    queries, expected = [], []
    for _ in range(int(rng.integers(1, 4))):
        own = list(living)[int(rng.integers(len(living)))]
        vector = reference.unit(rng.standard_normal(dim))
        parts = [(1.0, living[own]), (-0.5, {"text": vector})]
        queries.append(ua.query(item=own) - ua.query(vector=vector, modality="text", weight=0.5))
        rest = {key: rows for key, rows in living.items() if key != own}
        expected.append(
            reference.search(correction, NAMES, rest, parts, target=target, fuse=fuse, unit=unit) if rest else []
        )
    found = index.search(queries, k=k, target=target, fuse=fuse, unit=unit)
    for one, want in zip(found, expected, strict=True):
        tolerance = 1e-5 if method == "center_csls" and fuse != "rrf" else 1e-11
        if method == "center_csls" and fuse == "rrf":
            continue  # Ranks may differ within the rounding of the stored numbers of CSLS.
        check(one, want, k, tolerance=tolerance, rows=unit == "row")
        assert one.exact
        assert one.scanned == len(want)


def test_all_presence_masks_with_nan_in_absent_rows() -> None:
    rng = np.random.default_rng(0)
    masks = [mask for size in (1, 2, 3) for mask in itertools.combinations(NAMES, size)]
    items = {
        f"k{n:04d}": dict(zip(mask, unit_rows(rng, len(mask), 8), strict=True)) for n, mask in enumerate(masks * 3)
    }
    q = reference.unit(rng.standard_normal(8))
    for method in METHODS:
        correction = correction_of(method, rng, 8)
        index = build(items, correction, parts=2)
        rows = stored(index)
        for target in ("any", "best", *NAMES, *itertools.combinations(NAMES, 2)):
            found = index.search(ua.query(vector=q, modality="text"), k=100, target=target)
            want = reference.search(correction, NAMES, rows, [(1.0, {"text": q})], target=target)
            check(found, want, 100, tolerance=1e-5 if method == "center_csls" else 1e-11)
            lacking = len(items) - len(want)
            assert any(f"{lacking} items have none" in one for one in found.warnings) == bool(lacking)
            for hit in found:
                assert set(hit.missing) == set(NAMES) - set(items[hit.key])
                assert set(hit.scores) == set(items[hit.key]) & set(
                    NAMES if target in ("any", "best") else [target] if isinstance(target, str) else target
                )


def test_frechet_mean_of_parts() -> None:
    rng = np.random.default_rng(1)
    items = draw_items(rng, 30, 6)
    index = build(items, correction_of("none", rng, 6))
    a, b = unit_rows(rng, 2, 6).astype(np.float64)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    # Two thirds of the arc, as b has twice the weight.
    between = (np.sin(angle / 3) * a + np.sin(2 * angle / 3) * b) / np.sin(angle)
    fused = index.search(
        ua.query(vector=a, modality="text") + 2 * ua.query(vector=b, modality="image"), fuse="frechet_mean"
    )
    want = reference.search(correction_of("none", rng, 6), NAMES, stored(index), [(1.0, {"text": between})])
    check(fused, want, 10, tolerance=1e-7)
    with pytest.raises(ConfigError, match="positive weights"):
        index.search(ua.query(vector=a, modality="text") - ua.query(vector=b, modality="image"), fuse="frechet_mean")


def test_error_bounds_hold_and_candidates_are_few() -> None:
    """Scores in float32 differ from exact ones by less than the bound."""
    rng = np.random.default_rng(2)
    for method, best in itertools.product(METHODS, (False, True)):
        dim = 64
        correction = correction_of(method, rng, dim)
        items = draw_items(rng, 400, dim)
        for n in range(60):  # Rows close to the mean of their modality, and rows that nearly cancel.
            row = unit_rows(rng, 1, dim)[0]
            items[f"n{n:04d}"] = {
                "image": row,
                "text": (-row + 1e-3 * n * unit_rows(rng, 1, dim)[0]).astype(np.float32),
            }
        index = build(items, correction)
        storage = index._storage
        q = unit_rows(rng, 5, dim)
        queries = [ua.query(vector=row, modality="text") for row in q]
        vectors = query_vectors(queries, correction, dim, encode=_never, lookup=_never)
        scan = Scan(
            storage.snapshot,
            storage.derived(),
            correction,
            vectors,
            groups=[NAMES],
            best=best,
            combine=False,
            allowed=None,
            excluded=np.zeros((0, 3), np.int64),
        )
        prepared = scan.entries[0].prepared
        everything = slice(0, prepared.part.items)
        fast = tile_scores(prepared, everything, scan.terms, vectors, best=best).double().numpy()
        bound = prepared.error_n.double().numpy() * scan.factor
        usable = np.ones(prepared.part.items, bool) if prepared.usable_n is None else prepared.usable_n
        numbers = np.flatnonzero(usable)
        for row, (scores, order) in enumerate(scan.ranked([numbers] * 5, 1)):
            error = np.abs(fast[row][order] - scores)
            assert (error <= bound[order]).all(), (method, best)
        assert np.median(bound) < (2e-2 if method == "coral" else 1e-3), (method, best)
        top = scan.top(10)
        assert all(len(scores) < 0.5 * len(numbers) for scores, _ in top)


def _never(*_: object) -> Any:
    raise AssertionError


def test_adversarial_near_ties() -> None:
    """Items whose scores differ by less than float32 rounding are ordered as in float64."""
    rng = np.random.default_rng(3)
    dim = 32
    q = unit_rows(rng, 1, dim)[0].astype(np.float64)
    q /= np.linalg.norm(q)
    base = unit_rows(rng, 1, dim)[0]
    items: Items = {}
    for number in range(300):
        row = base.copy()
        for place in rng.integers(0, dim, 3):
            row[place] = np.nextafter(row[place], np.float32(rng.choice([-1, 1])), dtype=np.float32)
        items[f"k{number:04d}"] = {"image": row}
    for method in ("none", "center", "coral"):
        correction = correction_of(method, rng, dim)
        index = build(items, correction, parts=3)
        found = index.search(ua.query(vector=q, modality="text"), k=25)
        want = reference.search(correction, NAMES, stored(index), [(1.0, {"text": q})])
        check(found, want, 25, tolerance=1e-11)


def test_ties_are_sorted_by_key() -> None:
    rng = np.random.default_rng(4)
    row = unit_rows(rng, 1, 8)[0]
    far = unit_rows(rng, 1, 8)[0]
    keys = [f"k{n:04d}" for n in rng.permutation(500)]
    items = {key: {"image": row} for key in keys} | {"z": {"image": far}}
    index = build(items, correction_of("center", rng, 8), parts=4)
    found = index.search(ua.query(vector=row, modality="image"), k=7)
    assert found.keys == tuple(sorted(keys)[:7])


def test_filters_and_exclusions_leave_no_place_empty() -> None:
    rng = np.random.default_rng(5)
    items = draw_items(rng, 300, 8)
    correction = correction_of("center", rng, 8)
    index = build(items, correction, parts=3, metadata=True)
    q = reference.unit(rng.standard_normal(8))
    for where, chosen in (
        ("number < 6", lambda n: n < 6),
        ("number >= 20", lambda n: n >= 20),
        ("number < 0", lambda n: False),
    ):
        rest = {
            key: rows for key, rows in stored(index).items() if chosen(int(key[1:])) and key not in ("k0001", "k0100")
        }
        found = index.search(
            ua.query(vector=q, modality="text"), k=10, where=where, exclude=["k0001", "k0100", "unknown"]
        )
        want = reference.search(correction, NAMES, rest, [(1.0, {"text": q})]) if rest else []
        check(found, want, 10, tolerance=1e-11)
        assert found.scanned == len(rest)


def test_own_items_are_left_out_of_their_results_only() -> None:
    rng = np.random.default_rng(6)
    items = draw_items(rng, 20, 8)
    index = build(items, correction_of("none", rng, 8))
    found = index.search([ua.query(item="k0003"), ua.query(item="k0004")], k=50, fuse="rrf")
    assert set(found[0].keys) == set(items) - {"k0003"}
    assert set(found[1].keys) == set(items) - {"k0004"}


def test_cancelled_items_are_counted() -> None:
    rng = np.random.default_rng(7)
    row = unit_rows(rng, 1, 8)[0]
    items = {"a": {"image": row, "text": -row}, "b": {"image": row, "text": row}}
    index = build(items, correction_of("none", rng, 8))
    found = index.search(ua.query(vector=row, modality="text"))
    assert found.keys == ("b",)
    assert found.warnings == ("the vectors of 1 items cancel, so these items have no direction",)
    assert index.search(ua.query(vector=row, modality="text"), target="image").keys == ("a", "b")


def test_rows_at_the_mean_have_no_direction() -> None:
    rng = np.random.default_rng(8)
    row, mean = unit_rows(rng, 2, 8)
    correction = Calibration("center", "test", NAMES, {}, {"image": -torch.from_numpy(mean).double()})
    items = {"mean": {"image": mean}, "both": {"image": mean, "text": row}, "b": {"image": row}}
    index = build(items, correction)
    for target in ("any", "best"):
        found = index.search(ua.query(vector=row, modality="text"), target=target)
        want = reference.search(
            correction,
            NAMES,
            stored(index),
            [(1.0, {"text": row})],
            target=target,
        )
        assert {key for (key, _), _ in want} == set(found.keys) == {"both", "b"}
        check(found, want, 10, tolerance=1e-11)
        assert next(hit for hit in found if hit.key == "both").modality == "text"


def test_deduplicate_fills_up() -> None:
    rng = np.random.default_rng(9)
    rows = unit_rows(rng, 40, 16)
    items: Items = {}
    for n, row in enumerate(rows):
        for copy in range(5):
            near = row + 1e-3 * copy * unit_rows(rng, 1, 16)[0]
            items[f"k{5 * n + copy:04d}"] = {"image": (near / np.linalg.norm(near)).astype(np.float32)}
    index = build(items, correction_of("none", rng, 16), parts=2)
    found = index.search(ua.query(vector=rows[0], modality="image"), k=30, deduplicate=0.99)
    assert len({int(key[1:]) // 5 for key in found.keys}) == 30
    plain = index.search(ua.query(vector=rows[0], modality="image"), k=200)
    best: dict[int, str] = {}
    for key in plain.keys:
        best.setdefault(int(key[1:]) // 5, key)
    assert found.keys == tuple(best.values())[:30]
    everything = index.search(ua.query(vector=rows[0], modality="image"), k=100, deduplicate=0.99)
    assert len(everything) == 40
    assert not everything.warnings


def test_correction_none_gives_plain_cosines() -> None:
    rng = np.random.default_rng(10)
    items = draw_items(rng, 50, 8)
    index = build(items, correction_of("center_csls", rng, 8))
    q = reference.unit(rng.standard_normal(8))
    found = index.search(ua.query(vector=q, modality="text"), correction="none")
    assert found.correction == "none"
    want = reference.search(uncorrected(NAMES, ""), NAMES, stored(index), [(1.0, {"text": q})])
    check(found, want, 10, tolerance=1e-11)
    assert index.search(ua.query(vector=q, modality="text")).correction == "center_csls"


def test_probability_of_hits_and_least_probability() -> None:
    rng = np.random.default_rng(11)
    shared = rng.standard_normal((800, 12))
    rows = {name: shared + 0.5 * rng.standard_normal((800, 12)) for name in NAMES}
    index = Index(Storage.in_memory(NAMES, 12), None)
    index.add({name: z / np.linalg.norm(z, axis=1, keepdims=True) for name, z in rows.items()})
    keys = [item.key for item in index.items(limit=800)]
    found = index.search(ua.query(item=keys[0], modalities=["text"]), target="image", k=50)
    assert all(hit.probability is not None and 0 <= hit.quantile <= 1 for hit in found)
    least = sorted(hit.probability or 0.0 for hit in found)[-5]
    kept = index.search(ua.query(item=keys[0], modalities=["text"]), target="image", k=50, min_probability=least)
    assert kept.keys == tuple(hit.key for hit in found if (hit.probability or 0) >= least)
    assert not index.search(ua.query(item=keys[0], modalities=["text"]), target="text", min_probability=0.1)


def test_options_are_checked() -> None:
    rng = np.random.default_rng(12)
    index = build(draw_items(rng, 5, 4), correction_of("none", rng, 4))
    q = ua.query(item="k0000")
    for options, message in (
        ({"k": 0}, "k must be an integer from 1"),
        ({"k": True}, "k must be an integer"),
        ({"target": "imge"}, "did you mean"),
        ({"target": []}, "at least one modality"),
        ({"unit": "items"}, "unknown unit"),
        ({"correction": "center"}, "unknown correction"),
        ({"fuse": "sum"}, "unknown fuse"),
        ({"exact": "yes"}, "unknown exact"),
        ({"deduplicate": 0}, "deduplicate must be"),
        ({"deduplicate": float("nan")}, "deduplicate must be"),
        ({"min_probability": 1.5}, "min_probability must be"),
        ({"exclude": [3]}, "exclude must contain keys"),
    ):
        with pytest.raises(ConfigError, match=message):
            index.search(q, **options)
    for wrong in ("a red car", [q, "text"], None):
        with pytest.raises(ConfigError, match="expected a query"):
            index.search(wrong)  # type: ignore[call-overload]
    assert index.search([]) == []


def test_others_and_neighbors() -> None:
    rng = np.random.default_rng(13)
    items = draw_items(rng, 30, 8)
    items["full"] = dict(zip(NAMES, unit_rows(rng, 3, 8), strict=True))
    index = build(items, correction_of("center", rng, 8))
    found = index.search(index.others("full", target="audio"), target="audio")
    same = index.search(ua.query(item="full", modalities=["image", "text"]), target="audio")
    assert found.keys == same.keys
    assert "full" not in found.keys
    assert index.neighbors("full", k=3).keys == index.search(ua.query(item="full"), k=3).keys
    with pytest.raises(ConfigError, match="unknown target"):
        index.others("full", target="video")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")
def test_a_search_copies_no_rows() -> None:
    """Allocations of one search are a few vectors of one number per item."""
    rng = np.random.default_rng(14)
    count, dim = 20_000, 128
    index = Index(Storage.in_memory(("image",), dim), None)
    index.add({"image": unit_rows(rng, count, dim)}, keys=[f"k{n}" for n in range(count)])
    index._storage.set_calibration(correction_of("center", rng, dim, ("image",)))
    q = ua.query(vector=unit_rows(rng, 1, dim)[0], modality="image")
    index.search(q)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        index.search(q)
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profile.events())
    assert allocated < 64 * count  # The rows have 512 bytes each.


def test_rerank_orders_more_hits_than_are_returned() -> None:
    rng = np.random.default_rng(15)
    items = draw_items(rng, 60, 8)
    index = build(items, correction_of("center", rng, 8))
    q = ua.query(vector=reference.unit(rng.standard_normal(8)), modality="text")
    plain = index.search(q, k=20)
    found = index.search(q, k=3, rerank=lambda _, hits: [-hit.score for hit in hits], rerank_depth=20)
    assert found.keys == tuple(reversed(plain.keys))[:3]
    with pytest.raises(ConfigError, match="rerank_depth must be"):
        index.search(q, rerank=lambda _, hits: [0.0] * len(hits), rerank_depth=0)
    with torch.no_grad():
        assert float(torch.linalg.vector_norm(index.query_vector(q))) == pytest.approx(1)
