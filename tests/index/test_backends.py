"""Test exported indexes in LanceDB and in the local mode of Qdrant against the index they were exported from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua
from unialign.errors import ConfigError, DataError
from unialign.index._backends import pack_calibration, unpack_calibration

ITEMS, DIM = 300, 12
MODALITIES = ("image", "text", "audio")
FILTERS = (
    "label = 'b'",
    "label != 'b' and not price < 40",
    "price >= 10 and price < 50 or flag = true",
    "color in ('red', 'it''s', 7)",
    "missing(audio) and has(price)",
    "key in ('item 3', 'item 5') or missing(label)",
    "unknown = 3 or has(unknown)",
    "color = 7 or color = 'red'",
)


def index(method: str = "center") -> ua.Index:
    """Items with a gap between modalities, a third of whose sounds and a few other rows are absent."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(ITEMS, DIM))
    rows = {name: shared + 0.5 * rng.normal(size=(ITEMS, DIM)) + 2 * number for number, name in enumerate(MODALITIES)}
    present = {"audio": rng.random(ITEMS) > 0.3, "image": np.arange(ITEMS) % 11 != 5}
    metadata: list[dict[str, Any] | None] = [
        {"price": number, "flag": number % 2 == 0, "color": ("red", "it's", 7)[number % 3]} if number % 5 else None
        for number in range(ITEMS)
    ]
    labels = [None if number % 7 == 0 else "abc"[number % 3] for number in range(ITEMS)]
    made = ua.Index.from_store(ua.data.EmbeddingStore.from_arrays({n: r[:1] for n, r in rows.items()}), calibrate=False)
    made.delete(keys=["0"])
    made.add(rows, present=present, keys=[f"item {n}" for n in range(ITEMS)], labels=labels, metadata=metadata)
    made.calibrate(method=method)
    return made


@pytest.fixture(params=["lancedb", "qdrant"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    pytest.importorskip({"lancedb": "lancedb", "qdrant": "qdrant_client"}[request.param])
    return f"{request.param}:{tmp_path / 'database'}"


def same(found: Any, expected: ua.index.Found) -> None:
    assert found.keys == expected.keys
    np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-6)
    assert [(h.modality, h.missing, h.label, h.metadata) for h in found] == [
        (h.modality, h.missing, h.label, h.metadata) for h in expected
    ]


@pytest.mark.integrations
@pytest.mark.parametrize("method", ["none", "center", "coral"])
@pytest.mark.parametrize("target", ["any", "best", "text", ["image", "audio"]])
def test_results_equal_those_of_the_index(address: str, method: str, target: Any) -> None:
    own = index(method)
    assert own.export(address) == ITEMS
    connected = ua.Index.connect(address)
    assert len(connected) == ITEMS
    rng = np.random.default_rng(1)
    for query in (
        ua.query(vector=rng.normal(size=DIM), modality="audio"),
        ua.query(item="item 17") - 0.5 * ua.query(item="item 4", modalities=["text"]),
    ):
        expected = own.search(query, k=9, target=target)
        # A list of targets takes candidates of each of them, so only `any` and single targets are complete.
        found = connected.search(query, k=9, target=target)
        assert not found.exact
        same(found, expected)


@pytest.mark.integrations
def test_csls_scores_equal_those_of_the_index(address: str) -> None:
    own = index("center_csls")
    own.export(address)
    query = ua.query(item="item 17")
    same(ua.Index.connect(address).search(query, k=5), own.search(query, k=5))


@pytest.mark.integrations
def test_filters_select_the_same_items(address: str) -> None:
    own = index()
    own.export(address)
    connected = ua.Index.connect(address)
    query = ua.query(vector=np.ones(DIM), modality="text")
    for where in FILTERS:
        same(connected.search(query, k=ITEMS, where=where), own.search(query, k=ITEMS, where=where))


@pytest.mark.integrations
def test_a_second_export_replaces_the_first(address: str) -> None:
    own = index()
    own.export(address)
    own.delete(where="price > 20")
    count = len(own)
    assert own.export(address) == count
    connected = ua.Index.connect(address)
    assert len(connected) == count
    query = ua.query(vector=np.ones(DIM), modality="text")
    same(connected.search(query, k=10), own.search(query, k=10))


@pytest.mark.integrations
def test_a_database_without_an_index_and_unknown_items_raise(address: str) -> None:
    with pytest.raises(DataError, match="no exported index"):
        ua.Index.connect(address)
    index().export(address.replace("database", "other"))
    connected = ua.Index.connect(address.replace("database", "other"))
    with pytest.raises(ConfigError, match="no item 'item 500'"):
        connected.search(ua.query(item="item 500"))
    with pytest.raises(ConfigError, match="no space"):
        connected.search(ua.query(text="a red car"))


def test_an_unknown_back_end_and_a_malformed_address_raise() -> None:
    with pytest.raises(ConfigError, match="lancedb"):
        ua.Index.connect("lancedbb:path")
    with pytest.raises(ConfigError, match="address such as"):
        index().export("lancedb")


def test_a_plug_in_is_a_back_end() -> None:
    class Memory:
        def __init__(self, address: str) -> None:
            self.rows = stored.setdefault(address, [])

        def replace(self, rows: Any, *, modalities: Any, dim: int, manifest: Any) -> int:
            self.rows[:] = [row for batch in rows for row in batch]
            self.rows.append(json.loads(json.dumps(dict(manifest))))
            return len(self.rows) - 1

        def manifest(self) -> Any:
            return self.rows[-1]

        def nearest(self, target: str, vector: Any, count: int, where: Any) -> Any:
            assert where is None
            known = [(row.any_vector if target == "any" else row.vectors.get(target), row) for row in self.rows[:-1]]
            scored = [(-float(z @ vector), row.key, row) for z, row in known if z is not None]
            return [row for _, _, row in sorted(scored)[:count]]

        def get(self, key: str) -> Any:
            return next((row for row in self.rows[:-1] if row.key == key), None)

        def count(self) -> int:
            return len(self.rows) - 1

    stored: dict[str, list[Any]] = {}
    ua.registry.register("index", "memory", Memory)
    own = index()
    assert own.export("memory:here") == ITEMS
    query = ua.query(item="item 17") - 0.5 * ua.query(item="item 4", modalities=["text"])
    same(ua.Index.connect("memory:here").search(query, k=9), own.search(query, k=9))


def test_the_calibration_of_a_table_is_packed_and_damaged_ones_raise() -> None:
    calibration = index("center_csls").calibration
    again = unpack_calibration(pack_calibration(calibration))
    assert again.method == "center_csls"
    for name in MODALITIES:
        np.testing.assert_array_equal(again.bias[name], calibration.bias[name])
        np.testing.assert_array_equal(again.reference[name], calibration.reference[name])
    with pytest.raises(DataError, match="cannot be read"):
        unpack_calibration("AAAA")
