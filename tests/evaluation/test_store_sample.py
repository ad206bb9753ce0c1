"""Test that sampled items are ranked against all items of a store, and that intervals cover the full-store value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation import _store_evaluation

N, DIM = 90, 6
NAMES = ("a", "b", "c")


def make_store(*, ids: bool = False, missing: bool = False, noise: float = 0.9, split: str = "test") -> EmbeddingStore:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(N, DIM))
    columns = {name: (shared + noise * rng.normal(size=(N, DIM))).astype(np.float32) for name in NAMES}
    options: dict[str, Any] = {"labels": np.arange(N) % 5, "split": ["train"] * 10 + [split] * (N - 10)}
    if ids:
        options["ids"] = (np.arange(N) + 2) // 3
    if missing:
        options["present"] = {"b": np.arange(N) % 4 != 0, "c": np.arange(N) % 7 != 2}
        for name, mask in options["present"].items():
            columns[name][~mask] = np.nan
    return EmbeddingStore.from_arrays(columns, **options)


def in_memory(store: EmbeddingStore) -> ua.evaluation.Evaluation:
    rows = store.rows("test")
    return ua.evaluate(
        {name: torch.from_numpy(store.array(name)[rows]) for name in NAMES},
        present={name: store.present(name)[rows].copy() for name in NAMES},
        ids=store.ids[rows].copy(),
        labels=store.labels[rows].copy(),
    )


@pytest.mark.parametrize(("ids", "missing"), [(False, False), (True, False), (True, True)])
def test_sampled_items_have_the_ranks_of_the_whole_evaluation(
    monkeypatch: pytest.MonkeyPatch, ids: bool, missing: bool
) -> None:
    monkeypatch.setattr(_store_evaluation, "_BLOCK_ROWS", 17)
    store = make_store(ids=ids, missing=missing)
    whole = in_memory(store)
    assert ua.evaluate(store).metrics == whole.metrics
    total = N - 10
    found = ua.evaluate(store, sample=total - 1)
    places = np.sort(np.random.default_rng(0).choice(total, total - 1, replace=False, shuffle=False))
    assert (found.items, found.population) == (total - 1, total)
    assert set(found.metrics) == set(whole.metrics)
    compared = 0
    for name, statistic in found.statistics.items():
        expected = whole.statistics[name]
        if hasattr(statistic, "scores_KN") and name not in ("label_map", "true_pair_cosine", "zeta", "zeta_neg", "chi"):
            torch.testing.assert_close(
                statistic.scores_KN, expected.scores_KN[:, places], rtol=1e-12, atol=0, equal_nan=True
            )
            compared += 1
    assert compared == 12
    for label, values in found.directions.items():
        assert values["gallery"] == whole.directions[label]["gallery"]


def test_features_of_a_store_are_embedded_by_a_space() -> None:
    torch.manual_seed(0)  # With some other random heads, the interval does not contain the value.
    store = make_store(ids=True, missing=True)
    space = ua.Space({"c": DIM, "a": DIM, "b": DIM}, dim=4, hidden=8).fit_normalizer(store, store.rows("train"))
    embedded = space.encode(
        {name: store.array(name) for name in NAMES}, present={name: store.present(name).copy() for name in NAMES}
    )
    rows = store.rows("test")
    expected = ua.evaluate(
        {name: embedded[name][rows] for name in NAMES},
        present={name: store.present(name)[rows].copy() for name in NAMES},
        ids=store.ids[rows].copy(),
        labels=store.labels[rows].copy(),
    )
    assert ua.evaluate(store, space).metrics == pytest.approx(expected.metrics, rel=1e-4, nan_ok=True)
    sampled = ua.evaluate(store, space, sample=60)
    for name in ("recall@1", "joint_recall@1/volume", "map"):
        found = sampled.sampling_interval(name)
        assert found.low <= expected.metrics[name] <= found.high
    assert ua.evaluate(store, space, sample=60, seed=1).metrics != sampled.metrics


def test_the_interval_of_sampling_covers_the_value_of_all_items_and_shrinks_to_it() -> None:
    store = make_store()
    whole = ua.evaluate(store)
    covered, widths = [], []
    for seed in range(30):
        found = ua.evaluate(store, sample=40, seed=seed)
        interval = found.sampling_interval("mrr")
        covered.append(interval.low <= whole.metrics["mrr"] <= interval.high)
        widths.append(interval.high - interval.low)
        every_item = found.interval("mrr")
        assert interval.high - interval.low < every_item.high - every_item.low
    assert np.mean(covered) >= 0.85
    nearly_all = ua.evaluate(store, sample=79).sampling_interval("mrr")
    assert nearly_all.high - nearly_all.low < 0.3 * min(widths)
    point = whole.sampling_interval("mrr")
    assert point.low == point.high == whole.metrics["mrr"]
    assert "a sample of 79 of 80 items" in ua.evaluate(store, sample=79).text()


def test_invalid_arguments() -> None:
    store = make_store()
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (store, {"ids": np.arange(N)}, ConfigError, "a store contains presence, ids and labels"),
        (store, {"sample": 1}, ConfigError, "sample must be an integer of at least 2"),
        (store, {"split": "val"}, DataError, "the 'val' split of 'arrays' has 0 items"),
        (store, {"split": "all"}, ConfigError, "unknown split 'all'"),
        (store, {"space": ua.Space({"a": DIM, "z": 3})}, ConfigError, "the space has a, z; an evaluation needs two"),
        ({"a": np.ones((3, 2)), "b": np.ones((3, 2))}, {"sample": 2}, ConfigError, "require an EmbeddingStore"),
    ]
    for data, options, error, message in cases:
        with pytest.raises(error, match=message):
            ua.evaluate(data, **options)


def test_a_store_is_embedded_into_another_store(tmp_path: Path) -> None:
    store = make_store(ids=True, missing=True)
    space = ua.Space({"b": DIM, "a": DIM, "z": 3}, dim=4, hidden=8)
    embedded = space.encode_store(store, tmp_path / "z", batch_size=7)
    assert (embedded.columns, embedded.dim("a"), embedded.items) == (("a", "b"), 4, N)
    expected = space.encode({"b": store.array("b")}, present={"b": store.present("b").copy()})["b"].numpy()
    np.testing.assert_allclose(embedded.array("b"), expected, atol=1e-6)
    for name in ("ids", "groups", "labels", "split"):
        np.testing.assert_array_equal(getattr(embedded, name), getattr(store, name))
    np.testing.assert_array_equal(embedded.present("b"), store.present("b"))
    embedded.verify()
    images = {"thumbnails.zip": b"not read here", "notes.txt": b"any file"}
    pictured = EmbeddingStore.from_arrays({name: np.ones((3, DIM)) for name in ("a", "b")}, assets=images)
    copy = space.encode_store(pictured, tmp_path / "pictured")
    assert {name: copy.asset(name) for name in copy.assets} == images
    with pytest.raises(ConfigError, match="no modality is in both the store"):
        ua.Space({"z": 3}).encode_store(store, tmp_path / "y")


def test_copies_of_scores_for_repeated_ids_are_bounded_and_change_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=(N, DIM)).astype(np.float32) for name in NAMES}
    store = EmbeddingStore.from_arrays(columns, ids=np.arange(N) % 4, split=["test"] * N)
    copied: list[int] = []
    add_pairs = _store_evaluation._Counts._add_pairs

    def record(counts: Any, pairs: slice, s_Pb: torch.Tensor) -> None:
        copied.append(s_Pb.numel())
        add_pairs(counts, pairs, s_Pb)

    monkeypatch.setattr(_store_evaluation._Counts, "_add_pairs", record)
    metrics, most = [], []
    for entries in (2**20, 500):
        copied.clear()
        monkeypatch.setattr(_store_evaluation, "_PAIR_ENTRIES", entries)
        metrics.append(ua.evaluate(store, sample=40).metrics)
        most.append(max(copied))
    assert metrics[0] == metrics[1]
    assert most[0] > 40 * N
    assert most[1] <= 500
