"""Maps: layouts, the binary format, polygons, flags and caches."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import DIM, HUB, ITEMS, MODALITIES, SWAPPED, planted_index

import unialign as ua
from serve_support import Client
from unialign.serve import _map_points, _maps
from unialign.serve._map_points import FLAGS, MapPoints

MAP = "/api/v1/maps/index"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ua.Index]:
    with planted_index(tmp_path_factory.mktemp("maps") / "index") as index:
        yield index


@pytest.fixture
def call(planted: ua.Index) -> Iterator[Client]:
    client = Client(ua.serve.app(planted, burst=0, connections=0))
    yield client
    client.close()


def wait_for_job(call: Client, answer: Any) -> Any:
    while True:
        job = call("GET", f"/api/v1/jobs/{answer.json['job']}").json
        if job["state"] not in ("waiting", "running"):
            return job
        time.sleep(0.02)


def decoded(body: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Records and numbers of items."""
    (count,) = struct.unpack_from("<I", body)
    record = np.dtype([("x", "<u2"), ("y", "<u2"), ("modality", "u1"), ("flags", "u1")])
    records = np.frombuffer(body, record, count, 4)
    return records, np.frombuffer(body, "<u4", offset=4 + 6 * count)


def test_a_point_has_six_bytes_and_all_rows_of_the_index_are_points(call: Client, planted: ua.Index) -> None:
    answer = call("GET", MAP)
    records, items = decoded(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert len(answer.body) == 4 + 6 * len(records)
    assert len(items) == 0
    rows = planted.stats()["modalities"]
    assert np.bincount(records["modality"]).tolist() == [rows[name] for name in MODALITIES]
    assert answer.headers["x-map-rows"] == str(planted.generation)
    assert answer.headers["x-map-total"] == str(3 * ITEMS - 1)
    assert not records["flags"].any()


def test_numbers_of_items_follow_if_asked_for(call: Client) -> None:
    records, items = decoded(call("GET", f"{MAP}?items=true").body)
    assert len(items) == len(records)
    assert np.bincount(items, minlength=ITEMS).tolist() == [2 if n == 5 else 3 for n in range(ITEMS)]


def test_the_first_layout_is_the_projection_on_two_principal_axes(call: Client, planted: ua.Index) -> None:
    records, items = decoded(call("GET", f"{MAP}?items=true").body)
    drawn = planted.embeddings()
    rows = np.stack(
        [drawn.z[MODALITIES[m]][n] for m, n in zip(records["modality"], items, strict=True)], dtype=np.float64
    )
    centered = rows - rows.mean(0)
    expected = centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T
    places = np.stack([records["x"], 65_535 - records["y"].astype(int)], 1).astype(float)
    # Equal up to signs, one scale and a shift, apart from rounding and the few points at the edge.
    for axis in (0, 1):
        assert abs(np.corrcoef(places[:, axis], expected[:, axis])[0, 1]) > 0.9999
    spread = places.std(0) / expected.std(0)
    assert spread[0] == pytest.approx(spread[1], rel=0.01)


def test_a_larger_index_is_sampled_by_whole_items_in_all_modalities(call: Client) -> None:
    answer = call("GET", f"{MAP}?points=90&items=true")
    records, items = decoded(answer.body)
    assert 80 <= len(records) <= 90
    assert answer.headers["x-map-total"] == str(3 * ITEMS - 1)
    counts = np.bincount(records["modality"], minlength=3)
    assert counts.min() >= 28
    assert len(np.unique(items)) == int(answer.headers["x-map-items"]) == 30
    assert call("GET", f"{MAP}?points=90&items=true").body == answer.body


def test_filtered_items_stay_on_the_map_with_a_flag(call: Client) -> None:
    records, items = decoded(call("GET", f"{MAP}?items=true&where=number%20%3C%2010").body)
    assert ((records["flags"] & FLAGS["filtered"]) == 0).tolist() == (items < 10).tolist()
    wrong = call("GET", f"{MAP}?where=number%20%3C")
    assert (wrong.status, wrong.code) == (422, "bad_filter")


def test_a_polygon_has_the_items_whose_points_are_inside(call: Client) -> None:
    records, items = decoded(call("GET", f"{MAP}?items=true").body)
    low, high = 20_000, 40_000
    square = [(low, low), (high, low), (high, high), (low, high)]
    answer = call("POST", f"{MAP}/rows", {"polygon": square, "limit": 7}).json
    inside = (records["x"] > low) & (records["x"] < high) & (records["y"] > low) & (records["y"] < high)
    assert answer["total_rows"] == inside.sum()
    assert answer["total_items"] == len(set(items[inside]))
    assert set(answer["keys"]) == {f"item-{n}" for n in items[inside]}
    assert [item["key"] for item in answer["items"]] == answer["keys"][:7]
    text = call("POST", f"{MAP}/rows", {"polygon": square, "modalities": ["text"], "limit": 0}).json
    assert text["total_rows"] == (inside & (records["modality"] == 1)).sum()


def test_inside_a_polygon_is_decided_by_the_even_odd_rule() -> None:
    rng = np.random.default_rng(0)
    xy = rng.integers(0, 100, (500, 2)).astype(np.uint16)
    # A star that crosses itself: its middle is outside.
    star = [(50 + 45 * np.sin(a), 50 - 45 * np.cos(a)) for a in 4 * np.pi / 5 * np.arange(5)]
    found = _maps.inside_polygon(xy, star)
    expected = []
    for x, y in xy.astype(float):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(star, star[1:] + star[:1], strict=True):
            if (y0 > y) != (y1 > y):
                crossings += x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        expected.append(crossings % 2 == 1)
    assert found.tolist() == expected
    assert not _maps.inside_polygon(np.array([[50, 50]], np.uint16), star)[0]


def test_rows_and_keys_have_links_to_the_other_modalities(call: Client) -> None:
    records, items = decoded(call("GET", f"{MAP}?items=true").body)
    (item,) = call("POST", f"{MAP}/rows", {"keys": ["item-5"]}).json["items"]
    assert set(item["rows"]) == {"image", "text"}
    assert item["missing"] == ["audio"]
    assert {int(items[row]) for row in item["rows"].values()} == {5}
    assert [MODALITIES[records["modality"][item["rows"][name]]] for name in ("image", "text")] == ["image", "text"]
    assert item["media"] == {"text": "/api/v1/items/item-5/media/text"}
    one = call("POST", f"{MAP}/rows", {"rows": [item["rows"]["text"]]}).json["items"][0]
    assert (one["key"], one["inside"], one["rows"]) == ("item-5", ["text"], item["rows"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "bad_request"),
        ({"rows": [0], "keys": ["item-1"]}, 422, "bad_request"),
        ({"rows": [10**6]}, 422, "unknown_row"),
        ({"rows": [0], "generation": 999}, 410, "map_expired"),
        ({"polygon": [[0, 0], [1, 1]]}, 422, None),
        ({"polygon": [[0, 0]] * 257}, 422, None),
        ({"polygon": [[0, 0], [1, 1], [2, 0]], "layout": "umap"}, 409, "no_layout"),
        ({"rows": [0], "other": 1}, 422, None),
    ],
)
def test_wrong_requests_have_words(call: Client, body: Any, status: int, code: str | None) -> None:
    answer = call("POST", f"{MAP}/rows", body)
    assert answer.status == status
    assert code is None or answer.code == code


def test_an_unknown_index_is_not_found(call: Client) -> None:
    assert call("GET", "/api/v1/maps/other").status == 404


def test_flags_of_the_last_diagnosis_are_on_the_map(call: Client) -> None:
    assert call("GET", MAP).headers["x-map-overlays"] == "no"
    assert wait_for_job(call, call("GET", "/api/v1/diagnosis/index"))["state"] == "done"
    answer = call("GET", f"{MAP}?items=true")
    records, items = decoded(answer.body)
    assert answer.headers["x-map-overlays"] == "yes"

    def flagged(kind: str) -> set[tuple[str, str]]:
        rows = np.flatnonzero(records["flags"] & FLAGS[kind])
        return {(f"item-{items[row]}", MODALITIES[records["modality"][row]]) for row in rows}

    assert flagged("mispaired") >= {(key, "text") for key in SWAPPED}
    assert (HUB, "audio") in flagged("hub")


def test_umap_is_a_job_whose_result_is_kept_in_the_folder(
    call: Client, planted: ua.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def places(z: np.ndarray, start: np.ndarray, *, check: Any) -> np.ndarray:
        check()
        started.append(z.shape)
        return -start

    monkeypatch.setattr(_maps, "umap_places", places)
    monkeypatch.setattr(_maps, "check_umap", lambda: None)
    first = call("GET", f"{MAP}?layout=umap")
    assert first.status == 202
    assert wait_for_job(call, first)["state"] == "done"
    answer = call("GET", f"{MAP}?layout=umap")
    assert answer.status == 200
    assert started == [(3 * ITEMS - 1, DIM)]
    mine, other = decoded(answer.body)[0], decoded(call("GET", MAP).body)[0]
    assert np.corrcoef(mine["x"], other["x"])[0, 1] < -0.99
    # Another process finds the layout, unless the file was damaged.
    (file,) = (planted.path / "maps").glob("*.bin")
    again = Client(ua.serve.app(planted, burst=0, connections=0))
    assert again("GET", f"{MAP}?layout=umap").body == answer.body
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    damaged = Client(ua.serve.app(planted, burst=0, connections=0))
    assert damaged("GET", f"{MAP}?layout=umap").status == 202
    assert planted.verify() == []


def test_places_are_scaled_equally_and_far_points_stay_on_the_map() -> None:
    places = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32) * [3, 1]
    places[0] = [1e6, -1e6]
    units = _map_points.to_units(places.astype(np.float32)).astype(float)
    assert units[0].tolist() == [65_535, 65_535]
    assert units[1:, 0].std() / units[1:, 1].std() == pytest.approx(3, rel=0.1)
    assert _map_points.to_units(np.zeros((0, 2), np.float32)).shape == (0, 2)
    assert len(np.unique(_map_points.to_units(np.zeros((3, 2), np.float32)))) == 1


def test_an_empty_index_has_an_empty_map(tmp_path: Path) -> None:
    with ua.Index.create(tmp_path / "index", dim=4, modalities=("a", "b")) as index:
        answer = Client(ua.serve.app(index, burst=0, connections=0))("GET", MAP)
        assert (answer.status, answer.body) == (200, b"\0\0\0\0")


def test_the_sample_knows_whether_it_is_one(planted: ua.Index) -> None:
    points: MapPoints = _map_points.sample_points(planted, 10_000)
    assert not points.is_sample
    assert _map_points.sample_points(planted, 30).is_sample


@pytest.mark.integrations
@pytest.mark.slow
def test_umap_of_the_package(planted: ua.Index) -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed")
    from unialign.serve._umap_process import umap_places

    points = _map_points.sample_points(planted, 10_000)
    start = _map_points.principal_places(points.z)[0]
    places = umap_places(points.z, start, check=lambda: None)
    assert places.shape == (len(points), 2)
    assert np.isfinite(places).all()
    # Rows of an item lie together: much nearer than random rows.
    own = np.array([places[(points.item == n)] for n in range(50) if n not in (5, 10, 11, 30, 40)])
    apart = np.linalg.norm(own - own.mean(1, keepdims=True), axis=2).mean()
    assert apart < 0.4 * np.linalg.norm(places - places.mean(0), axis=1).mean()
