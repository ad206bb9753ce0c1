"""Test an index against a dictionary under random sequences of changes, with a reader of an earlier generation."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import unialign as ua
from unialign.errors import ConfigError
from unialign.index import _index

DIM = 4
MODALITIES = ("image", "text", "audio")
KEYS = [f"k{number}" for number in range(12)]
LABELS = (None, "car", "bus")
FILTERS = {
    "label = 'car'": lambda item: item.label == "car",
    "not label in ('car', 'x')": lambda item: item.label != "car",
    "has(audio) and price < 3": lambda item: "audio" in item.rows and item.metadata.get("price", 9) < 3,
    "missing(text) or price >= 3": lambda item: "text" not in item.rows or item.metadata.get("price", 0) >= 3,
    "key > 'k3' and missing(price)": lambda item: item.key > "k3" and "price" not in item.metadata,
}


class Item(NamedTuple):
    key: str
    label: str | None
    metadata: dict[str, Any]
    rows: dict[str, np.ndarray]


Model = dict[str, Item]
masks = st.integers(1, 2 ** len(MODALITIES) - 1)
keys = st.sampled_from(KEYS)
seeds = st.integers(0, 10**6)
labels = st.sampled_from(LABELS)
metadata = st.one_of(st.none(), st.fixed_dictionaries({"price": st.integers(0, 5)}))


def rows_of(mask: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {name: rng.normal(size=DIM) for bit, name in enumerate(MODALITIES) if mask >> bit & 1}
    return {name: (row / np.linalg.norm(row)).astype(np.float32) for name, row in found.items()}


def scores(model: Model, query: np.ndarray, target: str) -> dict[str, float]:
    """Plain cosines with the mean of the rows of an item, in float64."""
    found = {}
    for item in model.values():
        used = [item.rows[name].astype(np.float64) for name in item.rows if target in ("any", name)]
        if used:
            mean = np.sum([row / np.linalg.norm(row) for row in used], axis=0)
            if np.linalg.norm(mean) >= 1e-3:
                found[item.key] = float(query @ mean / np.linalg.norm(mean))
    return found


class IndexMachine(RuleBasedStateMachine):
    """`model` is what the writer has, and `seen` what the reader has."""

    @initialize(in_memory=st.booleans())
    def begin(self, in_memory: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.small, _index._MOST_SMALL = _index._MOST_SMALL, 3
        self.model: Model = {}
        self.seen: Model = {}
        self.reader: ua.Index | None = None
        if in_memory:
            store = ua.data.EmbeddingStore.from_arrays({name: np.ones((1, DIM)) for name in MODALITIES})
            self.writer = ua.Index.from_store(store, calibrate=False)
            self.writer.delete(keys=["0"])
        else:
            self.writer = ua.Index.create(self.folder / "index", dim=DIM, modalities=MODALITIES)
            self.reader = ua.Index.open(self.folder / "index")

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            assert self.writer.verify() == []
            self.writer.close()
            _index._MOST_SMALL = self.small
        if getattr(self, "reader", None) is not None:
            self.reader.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(
        items=st.dictionaries(keys, st.tuples(masks, seeds, labels, metadata), min_size=1, max_size=5),
        on_conflict=st.sampled_from(["error", "replace", "skip"]),
    )
    def add(self, items: dict[str, tuple[int, int, str | None, Any]], on_conflict: Any) -> None:
        new = {
            key: Item(key, label, given or {}, rows_of(mask, seed)) for key, (mask, seed, label, given) in items.items()
        }
        data = {
            name: np.stack([item.rows.get(name, np.full(DIM, np.nan)) for item in new.values()]) for name in MODALITIES
        }
        options: dict[str, Any] = {
            "present": {name: np.array([name in item.rows for item in new.values()]) for name in MODALITIES},
            "keys": list(new),
            "labels": [item.label for item in new.values()],
            "metadata": [item.metadata or None for item in new.values()],
            "on_conflict": on_conflict,
        }
        known = [key for key in new if key in self.model]
        if known and on_conflict == "error":
            try:
                self.writer.add(data, **options)
            except ConfigError as error:
                assert repr(known[0]) in str(error)  # noqa: PT017
                return
            raise AssertionError("the key exists")
        done = self.writer.add(data, **options)
        replaced = len(known) if on_conflict == "replace" else 0
        assert (done.added, done.replaced) == (len(new) - len(known), replaced)
        self.model |= {key: item for key, item in new.items() if on_conflict != "skip" or key not in known}

    @rule(key=keys, mask=st.integers(0, 7), seed=seeds, gone=st.sampled_from([None, *MODALITIES]), given=metadata)
    def update(self, key: str, mask: int, seed: int, gone: str | None, given: Any) -> None:
        rows: dict[str, Any] = dict(rows_of(mask, seed))
        if gone is not None:
            rows[gone] = None
        old = self.model.get(key)
        left = None if old is None else {n: r for n, r in {**old.rows, **rows}.items() if r is not None}
        if not left:
            try:
                self.writer.update(key, rows, metadata=given)
            except ConfigError:
                return
            raise AssertionError("there is no such item, or it has no modality")
        self.writer.update(key, rows, metadata=given)
        assert old is not None
        self.model[key] = Item(key, old.label, {**old.metadata, **(given or {})}, left)

    @rule(chosen=st.sets(keys, min_size=1, max_size=3))
    def delete(self, chosen: set[str]) -> None:
        known = sorted(chosen & set(self.model))
        if known:
            assert self.writer.delete(keys=known).deleted == len(known)
        for key in known:
            del self.model[key]

    @rule(where=st.sampled_from(list(FILTERS)))
    def delete_where(self, where: str) -> None:
        gone = [key for key, item in self.model.items() if FILTERS[where](item)]
        assert self.writer.delete(where=where).deleted == len(gone)
        for key in gone:
            del self.model[key]

    @rule(fails=st.booleans(), mask=masks, seed=seeds, key=keys)
    def batch(self, fails: bool, mask: int, seed: int, key: str) -> None:
        before = dict(self.model)
        generation = self.writer.generation
        try:
            with self.writer.batch():
                self.add({key: (mask, seed, "bus", {"price": 1})}, "replace")
                self.delete({key, KEYS[0]})
                self.add({key: (7, seed, None, None)}, "error")
                self.update(key, 1, seed + 1, None, {"price": 2})
                if fails:
                    raise KeyError
                assert self.writer.generation == generation, "nothing is committed before the end"
        except KeyError:
            self.model = before
            assert self.writer.generation == generation

    @rule(everything=st.booleans())
    def compact(self, everything: bool) -> None:
        self.writer.compact(everything=everything)

    @rule()
    def refresh(self) -> None:
        if self.reader is not None:
            self.reader.refresh()
            self.seen = dict(self.model)

    @rule()
    def reopen(self) -> None:
        if self.reader is not None:
            self.writer.close()
            self.writer = ua.Index.open(self.folder / "index", mode="w")

    @rule(
        seed=seeds,
        compared=st.sampled_from(["any", *MODALITIES]),
        where=st.one_of(st.none(), st.sampled_from(list(FILTERS))),
        k=st.integers(1, 8),
    )
    def search(self, seed: int, compared: str, where: str | None, k: int) -> None:
        query = rows_of(1, seed)["image"].astype(np.float64)
        for index, model in ((self.writer, self.model), (self.reader, self.seen)):
            if index is None:
                continue
            chosen = {key: item for key, item in model.items() if where is None or FILTERS[where](item)}
            expected = scores(chosen, query / np.linalg.norm(query), compared)
            found = index.search(
                ua.query(vector=query, modality="image"), k=k, target=compared, where=where, correction="none"
            )
            assert len(found) == min(k, len(expected))
            best = sorted(expected.values(), reverse=True)[:k]
            np.testing.assert_allclose([hit.score for hit in found], best, atol=1e-6)
            for hit in found:
                assert abs(expected[hit.key] - hit.score) < 1e-6
                assert hit.label == model[hit.key].label
                assert hit.metadata == model[hit.key].metadata

    @invariant()
    def same_items(self) -> None:
        for index, model in ((getattr(self, "writer", None), "model"), (getattr(self, "reader", None), "seen")):
            if index is None:
                continue
            expected: Model = getattr(self, model)
            items = index.items(limit=1000)
            assert sorted(item.key for item in items) == sorted(expected)
            assert len(index) == len(expected)
            for key, item in expected.items():
                stored = index.get(key)
                assert (stored.label, dict(stored.metadata)) == (item.label, item.metadata)
                assert set(stored.rows) == set(item.rows)
                for name, row in item.rows.items():
                    np.testing.assert_allclose(stored.rows[name], row, atol=1e-6)


IndexMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestModel = IndexMachine.TestCase
