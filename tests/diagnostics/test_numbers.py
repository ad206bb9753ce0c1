"""Test that the numbers of a diagnosis equal the results of public functions and of direct computations."""

import numpy as np
import pytest
import torch
from spaces import DIM, ITEMS, checked, healthy, shifted, unit

import unialign as ua
from unialign.data import open_collection
from unialign.diagnostics import make_results
from unialign.diagnostics._cka import debiased_cka
from unialign.diagnostics._near_rows import connected
from unialign.diagnostics._sampling import draw_items, sample_size
from unialign.diagnostics._scan import scan_modality
from unialign.readers import _rows


def scanned(z, **extra):
    data = open_collection({"z": z} | {f"present.{key}": mask for key, mask in extra.items()})
    return scan_modality(data.modalities["z"], np.arange(min(len(z), 4)))


def test_geometry_equals_the_public_functions():
    space = shifted()
    numbers = checked(space).numbers
    image, audio = space["image"], space["audio"]
    pair = numbers["pairs"]["image-audio"]
    assert pair["modality_gap_debiased"]["mean"] == pytest.approx(
        float(ua.geometry.modality_gap_debiased(image, audio))
    )
    assert pair["modality_gap"] == pytest.approx(float(ua.geometry.modality_gap(image, audio)))
    assert pair["true_pair_cosine"]["mean"] == pytest.approx(float(ua.geometry.true_pair_cosine(image, audio)))
    one = numbers["modalities"]["audio"]
    assert one["effective_rank"] == pytest.approx(float(ua.geometry.effective_rank(audio)))
    x, y = (unit(z.astype(np.float64)).astype(np.float64) for z in (image, audio))
    other = ~np.eye(ITEMS, dtype=bool)
    assert one["mean_cosine"]["mean"] == pytest.approx((y @ y.T)[other].mean(), abs=1e-6)
    assert pair["random_pair_cosine"] == pytest.approx((x @ y.T)[other].mean(), abs=1e-6)
    squared = 2 - 2 * (y @ y.T)[other]
    assert one["uniformity"] == pytest.approx(np.log(np.exp(-2 * squared).mean()), abs=1e-6)
    distance = np.square(x - y).sum(1).mean()
    assert pair["gap_fraction"] == pytest.approx(pair["modality_gap_debiased"]["mean"] ** 2 / distance, rel=1e-4)


def test_retrieval_equals_the_public_function_and_the_summary_is_its_mean():
    space = healthy(noise=1.2)
    diagnosis = checked(space)
    result = ua.metrics.retrieval(space["image"], space["text"], k=(1, 10))
    direction = diagnosis.numbers["directions"]["image->text"]
    assert direction["recall@1"]["mean"] == pytest.approx(result.recall[1])
    assert direction["recall@10"]["mean"] == pytest.approx(result.recall[10])
    assert direction["mrr"]["mean"] == pytest.approx(result.mrr)
    assert direction["median_rank"] == result.median_rank
    assert direction["auc"]["mean"] == pytest.approx(1 - float((result.ranks - 1).mean()) / (ITEMS - 1))
    assert direction["recall@1"]["low"] < direction["recall@1"]["mean"] < direction["recall@1"]["high"]
    means = [d["recall@1"]["mean"] for d in diagnosis.numbers["directions"].values()]
    assert diagnosis.summary["recall@1"]["mean"] == pytest.approx(np.mean(means))
    (run,) = make_results(diagnosis, seconds=0.0)["runs"]
    assert run["directions"]["image->text"]["recall@1"] == pytest.approx(result.recall[1])


def test_unrelated_rows_reach_chance_for_any_ids():
    rng = np.random.default_rng(0)
    items = 400
    space = {name: rng.standard_normal((items, 16)).astype(np.float32) for name in "ab"}
    for ids in (np.arange(items), np.arange(items) // 5):
        direction = checked(space | {"ids": ids}).numbers["directions"]["a->b"]
        chance = direction["chance"]
        several = items // len(np.unique(ids))
        assert chance["recall@1"] == pytest.approx(several / items)
        if several == 1:
            assert chance["mrr"] == pytest.approx((1 / np.arange(1, items + 1)).mean())
        assert direction["recall@10"]["mean"] == pytest.approx(chance["recall@10"], abs=0.03)
        assert direction["auc"]["mean"] == pytest.approx(0.5, abs=0.04)


def test_positive_classes_join_ids_and_equal_rows_in_chains():
    ids, first, second = np.array([0, 1, 2, 3, 4]), np.array([9, 9, 8, 7, 6]), np.array([5, 4, 4, 3, 2])
    assert connected(ids, first, second).tolist() == [0, 0, 0, 3, 4]


def test_cka_is_one_for_a_rotation_and_zero_for_a_shuffle():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((200, 8)))
    turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((8, 8)))[0])
    value, p = debiased_cka(x, 3 * x @ turn, seed=0)
    assert value == pytest.approx(1.0)
    assert p < 0.01
    value, p = debiased_cka(x, x[torch.from_numpy(rng.permutation(200))], seed=0)
    assert abs(value) < 0.05
    assert p > 0.01
    # Compare with unbiased HSIC (Song et al. 2012, Eq. 5).
    y = x + 0.5 * torch.from_numpy(rng.standard_normal((200, 8)))

    def hsic(a, b):
        k, m = (z @ z.T * (1 - torch.eye(200)) for z in (a, b))
        n, one = 200, torch.ones(200, dtype=torch.float64)
        parts = (k * m).sum() + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((parts - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5
    assert debiased_cka(x, y, seed=0)[0] == pytest.approx(expected)


def test_norms_and_largest_entry_are_of_all_usable_rows():
    z = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    z[3], z[4], z[5, 1] = 0, np.nan, np.inf
    z[6] *= 1e30
    z[7] *= 1e-30
    found = scanned(z)
    assert {kind: (b.count, b.first) for kind, b in found.invalid.items()} == {
        "nan": (1, (4,)), "inf": (1, (5,)), "zero": (1, (3,)), "tiny": (0, ()),
    }  # fmt: skip
    assert found.blank == 2
    usable = np.array([n not in (3, 4, 5) for n in range(50)])
    np.testing.assert_array_equal(found.usable_N, usable)
    np.testing.assert_allclose(found.norms_N[usable], np.linalg.norm(z[usable].astype(np.float64), axis=1), rtol=1e-5)
    assert found.largest == pytest.approx(float(np.abs(z[usable]).max()))


def test_equal_rows_have_equal_checksums_and_others_do_not():
    z = np.random.default_rng(0).standard_normal((2000, 5)).astype(np.float32)
    z[7] = z[3]
    z[:, 2] = 0.0
    z[7, 2] = -0.0  # -0.0 equals 0.0
    hashes = scanned(z).checksums_N
    assert hashes[7] == hashes[3]
    assert len(np.unique(hashes)) == 1999


def test_checksums_tell_apart_rows_that_differ_in_few_bits():
    """Rows that were converted from float16 and differ only in odd columns have different checksums.

    The 64-bit words of such rows differ by multiples of 2^45. In a sum of words times odd numbers, modulo 2^64, these
    differences affect only 19 bits, so some of 20,000 rows would collide.
    """
    z = np.zeros((20_000, 8), np.float16)
    rng = np.random.default_rng(0)
    z[:, 1::2] = rng.choice([0.25, 0.5, 1.0, 2.0], (20_000, 4)) * rng.integers(1, 2000, (20_000, 4))
    distinct = len(np.unique(z, axis=0))
    assert len(np.unique(scanned(z).checksums_N)) == distinct


def test_the_fingerprint_depends_on_content_names_and_presence_only(monkeypatch):
    space = healthy()
    first = checked(space).fingerprint
    assert checked(space, seed=3, sample=50).fingerprint == first
    monkeypatch.setattr(_rows, "CHUNK_BYTES", 1000)
    assert checked(space).fingerprint == first
    assert checked(space | {"present.text": np.arange(ITEMS) > 0}).fingerprint != first
    assert checked({"a": space["image"], **{k: v for k, v in space.items() if k != "image"}}).fingerprint != first
    space["text"][5, 5] += 1e-3
    assert checked(space).fingerprint != first


def test_a_sample_of_a_large_set_is_like_the_whole():
    space = healthy(("image", "text"), items=1200, noise=1.0)
    whole, part = checked(space, sample=1200).numbers, checked(space, sample=300).numbers
    assert part["sampled"] == 300
    for name, pair in part["pairs"].items():
        low, high = pair["true_pair_cosine"]["low"], pair["true_pair_cosine"]["high"]
        assert low - 0.01 < whole["pairs"][name]["true_pair_cosine"]["mean"] < high + 0.01
    assert part["directions"]["image->text"]["queries"] == 300
    assert part["modalities"]["image"]["rows"] == 1200


def test_thin_presence_still_gives_every_pair_enough_items():
    items = 20_000
    rng = np.random.default_rng(0)
    space = {name: rng.standard_normal((items, 4)).astype(np.float32) for name in "abc"}
    masks = {"present.b": rng.random(items) < 0.05, "present.c": np.arange(items) < 300}
    data = open_collection(space | masks)
    rows = draw_items(data, sample_size(data, None), seed=0)
    assert (np.diff(rows) > 0).all()
    for a, b in ("ab", "ac", "bc"):
        both = data.modalities[a].present_N & data.modalities[b].present_N
        assert both[rows].sum() >= min(512, both.sum())


def test_the_sample_shrinks_with_the_number_of_modalities_unless_a_size_is_given():
    small = {f"m{i}": np.ones((9000, 2), np.float32) for i in range(24)}
    data = open_collection(small)
    assert sample_size(data, None) == 493
    assert sample_size(data, 2000) == 2000
    assert sample_size(open_collection({"a": small["m0"], "b": small["m1"]}), None) == 2048


def test_the_same_call_gives_the_same_numbers():
    assert checked(healthy(), seed=4).to_dict() == checked(healthy(), seed=4).to_dict()
    assert len(healthy()["text"][0]) == DIM


def test_constant_columns_do_not_change_the_map():
    """The map is computed from the Gram matrix, since the covariance of 100,000 columns would take 80 GB."""
    space = healthy(("image", "text"), items=20)
    padded = {name: np.pad(z, ((0, 0), (30, 40_000))) for name, z in space.items()}
    narrow, wide = (checked(sources).details["sketch"] for sources in (space, padded))
    for name in space:
        np.testing.assert_allclose(wide["map"][name], narrow["map"][name], atol=2e-4)
    assert wide["explained"] == pytest.approx(narrow["explained"], rel=1e-4)
