"""Comparison of two indexes of the same items."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from planted import DIM, ITEMS, planted_index, planted_rows

import unialign as ua
from serve_support import Client
from unialign.serve._compare import procrustes

MOVED = "item-77"


def rotated() -> dict[str, np.ndarray]:
    """The planted rows in another basis, with one item elsewhere."""
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    rows = planted_rows()
    for z in rows.values():
        z[77] = z[150]
    return {name: (z @ turn).astype(np.float32) for name, z in rows.items()}


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("compare")
    fewer = {name: z[:-1] for name, z in planted_rows().items()}
    with (
        planted_index(folder / "a") as a,
        planted_index(folder / "b", rotated()) as b,
        planted_index(folder / "c", fewer) as c,
    ):
        client = Client(ua.serve.app({"a": a, "b": b, "c": c}, burst=0, connections=0))
        yield client
        client.close()


def compared(call: Client, **body: Any) -> Any:
    answer = call("POST", "/api/v1/compare", {"a": "a", "b": "b", **body})
    assert answer.status == 200, answer.body
    return answer.json


def test_a_turned_space_keeps_its_neighbors_and_the_mover_is_found(call: Client) -> None:
    found = compared(call)
    assert found["items"] == ITEMS
    assert found["kept"] > 0.9
    assert found["residual"] < 0.02
    assert found["movers"][0]["key"] == MOVED
    assert found["movers"][0]["kept"] < 0.5
    assert found["movers"][0]["lost"]
    a, b = np.array(found["points"]["a"]), np.array(found["points"]["b"])
    # The second map is turned onto the first.
    still = [n for n, key in enumerate(found["points"]["keys"]) if key != MOVED]
    assert np.abs(a[still] - b[still]).mean() < 0.02
    assert np.abs(a - b).max() > 0.1


def test_metrics_are_those_of_the_rows(call: Client) -> None:
    first, second = (compared(call)["metrics"][side] for side in ("a", "b"))
    assert [one["name"] for one in first] == ["R@1", "R@10", "gap", "hub skewness"]
    # The moved item is a copy of another, which only lowers its own retrieval.
    assert first[0]["value"] == pytest.approx(second[0]["value"], abs=0.02)
    for one in first[:2]:
        assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
    z = planted_rows()
    both = np.arange(ITEMS) != 5
    hits = []
    for query, gallery in (("image", "text"), ("text", "image")):
        score = z[query] @ z[gallery].T
        hits += (score > np.diag(score)[:, None] + 1e-6).sum(1).tolist()
    for query, gallery in (("image", "audio"), ("audio", "image"), ("text", "audio"), ("audio", "text")):
        score = z[query][both] @ z[gallery][both].T
        hits += (score > np.diag(score)[:, None] + 1e-6).sum(1).tolist()
    assert first[0]["value"] == pytest.approx(np.mean(np.array(hits) < 1), abs=1e-6)
    assert first[1]["value"] == pytest.approx(np.mean(np.array(hits) < 10), abs=1e-6)


def test_both_answers_have_the_rank_in_the_other_index(call: Client) -> None:
    found = compared(call, part={"item": "item-3"}, k=5, maps=False)
    assert "points" not in found
    sides = found["answers"]
    for side, other in (("a", "b"), ("b", "a")):
        results = sides[side]["results"]
        assert [one["rank"] for one in results] == [1, 2, 3, 4, 5]
        there = {one["key"]: one["rank"] for one in sides[other]["results"]}
        for one in results:
            assert one["other_rank"] == there.get(one["key"], one["other_rank"])
    moved = compared(call, part={"item": MOVED}, k=5)["answers"]["a"]["results"]
    assert any(one["other_rank"] != one["rank"] for one in moved)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"a": "a", "b": "a"}, 422, "same_index"),
        ({"a": "a", "b": "c"}, 409, "different_items"),
        ({"a": "a", "b": "z"}, 404, "no_index"),
        ({"a": "a", "b": "b", "part": {"item": "none"}}, 422, "unknown_item"),
        ({"a": "a", "b": "b", "part": {"item": "item-1"}, "target": "smell"}, 422, "unknown_modality"),
        ({"a": "a", "b": "b", "part": {"text": "red"}}, 409, "no_encoder"),
        ({"a": "a", "b": "b", "part": {"item": "item-1"}, "parts": []}, 422, "bad_request"),
    ],
)
def test_wrong_requests_have_words(call: Client, body: Any, status: int, code: str) -> None:
    answer = call("POST", "/api/v1/compare", body)
    assert (answer.status, answer.code) == (status, code)


def test_procrustes_undoes_a_turn_a_mirror_a_scale_and_a_shift() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned, residual = procrustes(a, 2.5 * a @ turn + [3, -1, 2])
    assert residual < 1e-12
    assert np.allclose(turned, a)
    noise, worse = procrustes(a, rng.normal(size=a.shape))
    assert 0.5 < worse <= 1
    assert noise.shape == a.shape
    # The best turn leaves no less than the residual: compare with many others.
    best = np.square(noise - a).sum() / np.square(a - a.mean(0)).sum()
    assert best == pytest.approx(worse, abs=1e-9)
    assert procrustes(a, np.zeros_like(a))[1] == 1.0
