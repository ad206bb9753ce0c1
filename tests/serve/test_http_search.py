"""Test searches, items, exports and jobs over HTTP against the index."""

import csv
import io
import json
import math
import time
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import unialign as ua
from serve_support import DIM, ITEMS, KEYS, TOKEN, Client, multipart, png

Make = Callable[..., Client]
PATH = "/api/v1/search"


def test_a_search_finds_what_the_index_finds(client: Make, index: ua.Index) -> None:
    vector = np.random.default_rng(3).normal(size=DIM)
    parts = [
        {"text": "a red car"},
        {"item": "item-7", "modalities": ["text"], "weight": -0.5},
        {"vector": vector.tolist(), "modality": "image", "weight": 2},
    ]
    expected = index.search(
        ua.query(text="a red car")
        + ua.query(item="item-7", modalities=["text"], weight=-0.5)
        + ua.query(vector=vector, modality="image", weight=2.0),
        k=5,
        where="number < 30",
        target="text",
    )
    body = {"parts": parts, "k": 3, "offset": 2, "where": "number < 30", "target": "text"}
    answer = client()("POST", PATH, body).json
    assert [hit["key"] for hit in answer["results"]] == list(expected.keys[2:])
    np.testing.assert_allclose([hit["score"] for hit in answer["results"]], [hit.score for hit in expected[2:]])
    assert (answer["scanned"], answer["exact"], answer["generation"]) == (expected.scanned, True, index.generation)
    assert set(answer["seconds"]) >= {"queue", "encode", "search"}
    hit = answer["results"][0]
    assert set(hit) >= {"key", "name", "score", "probability", "quantile", "modality", "scores", "missing", "label"}
    assert hit["metadata"]["shop"] == "=1+1"


def test_the_media_links_of_results_can_be_fetched(client: Make) -> None:
    call = client()
    for key in KEYS.values():
        answer = call("POST", PATH, {"parts": [{"item": key}], "k": 40})
        for hit in answer.json["results"]:
            if hit["key"] in KEYS.values():
                for modality, link in hit["media"].items():
                    found = call("GET", link)
                    assert found.status == 200, link
                    kind = "image/png" if modality == "image" else "text/plain; charset=utf-8"
                    assert found.headers["content-type"] == kind


def test_a_file_is_a_part_of_a_query(client: Make, index: ua.Index) -> None:
    picture = png((10, 20, 200))
    body, headers = multipart({"parts": [{"file": "f0"}, {"text": "a"}], "k": 4}, {"f0": picture})
    answer = client()("POST", "/api/v1/search/files", body, headers=headers)
    from PIL import Image

    pixels = np.array(Image.open(io.BytesIO(picture)))
    expected = index.search(ua.query(image=pixels) + ua.query(text="a"), k=4)
    assert [hit["key"] for hit in answer.json["results"]] == list(expected.keys)


def test_an_embedding_is_that_of_the_index(client: Make, index: ua.Index) -> None:
    answer = client()("POST", "/api/v1/embed", {"parts": [{"text": "a cat"}, {"item": "item-7"}]}).json
    assert answer["modality"] == ["text", "text", "image"]
    np.testing.assert_allclose(answer["vectors"][0], index.encode({"text": ["a cat"]})["text"][0].numpy(), atol=1e-6)
    np.testing.assert_allclose(answer["vectors"][2], index.get("item-7").rows["image"], atol=1e-7)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"parts": []}, 422, "no_parts"),
        ({"parts": [{"text": "a"}] * 17}, 422, "too_many_parts"),
        ({"parts": [{"text": "a", "item": "b"}]}, 422, "bad_request"),
        ({"parts": [{}]}, 422, "bad_request"),
        ({"parts": [{"text": "a", "weight": 0}]}, 422, "bad_request"),
        ({"parts": [{"text": "a", "weight": "1"}]}, 422, "bad_request"),
        ({"parts": [{"text": "a", "weight": True}]}, 422, "bad_request"),
        ({"parts": [{"text": 3}]}, 422, "bad_request"),
        ({"parts": [{"text": " "}]}, 422, "blank_text"),
        ({"parts": [{"text": "a" * 20_001}]}, 422, "too_long"),
        ({"parts": [{"text": "/etc/passwd", "modality": "image"}]}, 409, "no_encoder"),
        ({"parts": [{"text": "a", "modality": "texts"}]}, 422, "unknown_modality"),
        ({"parts": [{"item": "nothing"}]}, 422, "unknown_item"),
        ({"parts": [{"item": "a\0b"}]}, 422, "unknown_item"),
        ({"parts": [{"item": "item-7", "modalities": ["smell"]}]}, 422, "unknown_modality"),
        ({"parts": [{"item": "item-7"}, {"item": "item-7", "weight": -1}]}, 422, "cancelled_out"),
        ({"parts": [{"vector": [1.0] * DIM}]}, 422, "no_modality"),
        ({"parts": [{"vector": [1.0], "modality": "text"}]}, 422, "bad_vector"),
        ({"parts": [{"vector": [0.0] * DIM, "modality": "text"}]}, 422, "bad_vector"),
        ({"parts": [{"file": "f0"}]}, 422, "no_file"),
        ({"parts": [{"file": "../x"}]}, 422, "bad_request"),
        ({"parts": [{"text": "a"}], "k": 1001}, 422, "too_many_results"),
        ({"parts": [{"text": "a"}], "k": 0}, 422, "bad_request"),
        ({"parts": [{"text": "a"}], "k": 1.5}, 422, "bad_request"),
        ({"parts": [{"text": "a"}], "k": 1000, "offset": 9001}, 422, "too_deep"),
        ({"parts": [{"text": "a"}], "where": "number <"}, 422, "bad_filter"),
        ({"parts": [{"text": "a"}], "where": "1; DROP TABLE items"}, 422, "bad_filter"),
        ({"parts": [{"text": "a"}], "target": "smell"}, 422, "unknown_modality"),
        ({"parts": [{"text": "a"}], "rerank": "best"}, 422, "no_reranker"),
        ({"parts": [{"text": "a"}], "index": "other"}, 404, "no_index"),
        ({"parts": [{"text": "a"}], "url": "http://127.0.0.1"}, 422, "unknown_field"),
        ({"parts": [{"url": "http://127.0.0.1/a.png"}]}, 422, "unknown_field"),
        ([], 422, "bad_request"),
    ],
)
def test_invalid_searches(client: Make, body: Any, status: int, code: str) -> None:
    answer = client()("POST", PATH, body)
    assert (answer.status, answer.code) == (status, code)
    error = answer.json["error"]
    assert set(error) <= {"code", "message", "field", "limit", "request_id"}
    assert "Traceback" not in error["message"]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"{x}", 400),
        (b"", 400),
        (b'{"parts": [{"text": "a"}]', 400),
        (b'{"parts": [{"text": "a", "weight": NaN}]}', 422),
        (b'{"parts": [{"text": "a", "weight": 1e999}]}', 422),
        (b'{"parts": [{"text": "a", "weight": -Infinity}]}', 422),
        (b"[" * 100_000, 400),
        (b'{"parts": ' + b'[{"a":' * 5000, 400),
        (b"\xff\xfe{}", 400),
        (b'{"parts": [{"text": "\\ud800"}]}', 422),
    ],
)
def test_malformed_json(client: Make, text: bytes, status: int) -> None:
    call = client()
    for _ in range(2):
        answer = call("POST", PATH, text, headers={"content-type": "application/json"})
        assert answer.status == status
        assert answer.json["error"]["request_id"]


def test_limits_at_and_below_are_accepted(client: Make) -> None:
    call = client(k=5, depth=8, parts=3, characters=10)
    texts = [{"text": "a" * 10}] * 3
    assert call("POST", PATH, {"parts": texts, "k": 5, "offset": 3}).status == 200
    assert call("POST", PATH, {"parts": texts, "k": 5, "offset": 4}).code == "too_deep"
    assert call("POST", PATH, {"parts": texts, "k": 6}).code == "too_many_results"
    assert call("POST", PATH, {"parts": [*texts, {"text": "a"}], "k": 5}).code == "too_many_parts"
    assert call("POST", PATH, {"parts": [{"text": "a" * 11}], "k": 5}).code == "too_long"


def test_pages_cover_all_items_once_and_cursors_expire(make_fresh: Make, fresh_index: ua.Index) -> None:
    call = make_fresh()
    keys: list[str] = []
    cursor = ""
    while True:
        page = call("GET", f"/api/v1/items?limit=7{cursor}").json
        keys += [item["key"] for item in page["items"]]
        assert page["total"] == ITEMS
        if page["cursor"] is None:
            break
        cursor = f"&cursor={quote(page['cursor'])}"
    assert keys == [item.key for item in fresh_index.items(limit=100)]
    fresh_index.delete(keys=["item-9"])
    answer = call("GET", f"/api/v1/items?limit=7{cursor}")
    assert (answer.status, answer.code) == (410, "cursor_expired")
    assert call("GET", "/api/v1/items?cursor=abc").code == "bad_cursor"
    assert call("GET", "/api/v1/items?limit=101").code == "too_many_results"
    assert call("GET", "/api/v1/items?limit=x").code == "bad_request"
    assert call("GET", "/api/v1/items?where=label%20%3D").code == "bad_filter"
    found = call("GET", "/api/v1/items?where=has(audio)%20and%20number%20%3C%2010").json["items"]
    assert [item["metadata"]["number"] for item in found] == [0, 3, 6]


@pytest.mark.parametrize("key", KEYS.values())
def test_keys_may_have_any_characters(client: Make, key: str) -> None:
    answer = client()("GET", f"/api/v1/items/{quote(key, safe='')}")
    assert (answer.status, answer.json["key"]) == (200, key)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/items/..%2f..%2fetc%2fpasswd",
        "/api/v1/items/%2e%2e%2f%2e%2e%2fetc",
        "/api/v1/items/../../etc/passwd",
        "/api/v1/items//etc/passwd",
        "/api/v1/items/%2Fetc%2Fpasswd",
        "/api/v1/items/a%00b",
        "/api/v1/items/item-7/media/..%2f..%2fspace",
        "/api/v1/items/item-7/media/%00",
        "/api/v1/items/item-7/media/image%00.png",
        "/api/v1/items/%2e%2e%2f/media/image",
        "/api/v1/jobs/..%2f..%2fx",
        "/api/v1/jobs/%00",
        "/../serve/_run.py",
        "/%2e%2e/_run.py",
        "/..%2f_run.py",
        "//etc/passwd",
        "/_run.py",
        "/page/index.html",
    ],
)
def test_paths_reach_no_file(client: Make, path: str) -> None:
    answer = client()("GET", path)
    assert answer.status == 404
    assert "root:" not in answer.body.decode()


def test_media_have_types_sizes_and_tags(client: Make) -> None:
    from PIL import Image

    call = client()
    answer = call("GET", "/api/v1/items/item-7/media/image")
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert Image.open(io.BytesIO(answer.body)).size == (300, 200)
    small = call("GET", "/api/v1/items/item-7/media/image?size=64")
    assert Image.open(io.BytesIO(small.body)).size == (64, 43)
    assert call("GET", "/api/v1/items/item-7/media/image?size=65").status == 422
    again = call("GET", "/api/v1/items/item-7/media/image", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    text = call("GET", "/api/v1/items/item-7/media/text")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.body == b"<b>text 7</b>"
    assert call("GET", "/api/v1/items/item-6/media/image").code == "no_media"
    assert call("GET", "/api/v1/items/item-7/media/smell").code == "no_media"


def test_changes_need_permission(client: Make) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        answer = client()(method, "/api/v1/items/item-7", {"label": "x"} if method != "DELETE" else None)
        assert (answer.status, answer.code) == (403, "read_only")


@pytest.fixture
def make_fresh(client: Make, fresh_index: ua.Index) -> Make:
    return lambda **settings: client(fresh_index, **settings)


def test_items_are_added_changed_and_deleted(make_fresh: Make, fresh_index: ua.Index) -> None:
    call = make_fresh(writable=True)
    vector = np.ones(DIM).tolist()
    path = f"/api/v1/items/{quote('neu/1', safe='')}"
    body = {"vectors": {"image": vector}, "texts": {"text": "a green bird"}, "label": "new", "metadata": {"price": 3}}
    added = call("PUT", path, body)
    assert added.status == 201
    assert added.json["generation"] == fresh_index.generation
    item = fresh_index.get("neu/1")
    assert (item.label, dict(item.metadata), item.modalities) == ("new", {"price": 3}, ("text", "image"))
    found = call("POST", PATH, {"parts": [{"text": "a green bird"}], "target": "text", "k": 1}).json["results"]
    assert found[0]["key"] == "neu/1"
    assert call("GET", f"{path}/media/text").body == b"a green bird"
    assert call("PUT", path, body).status == 200
    assert call("PATCH", path, {"label": "other", "vectors": {"image": None}}).status == 200
    item = fresh_index.get("neu/1")
    assert (item.label, item.modalities, dict(item.metadata)) == ("other", ("text",), {"price": 3})
    stale = {"if-match": '"1"'}
    assert call("DELETE", path, headers=stale).code == "conflict"
    current = {"if-match": f'"{fresh_index.generation}"'}
    assert call("DELETE", path, headers=current).json["deleted"] == 1
    assert "neu/1" not in fresh_index
    assert call("DELETE", path).code == "no_item"
    assert call("PATCH", path, {"label": "x"}).code == "no_item"
    assert call("PUT", path, {"label": "x"}).code == "no_rows"
    assert call("PUT", path, {"vectors": {"smell": vector}}).code == "unknown_modality"
    assert call("PUT", path, {"vectors": {"image": [1.0]}}).code == "bad_vector"
    assert call("PUT", "/api/v1/items/a%00b", {"vectors": {"image": vector}}).code == "bad_key"
    assert len(fresh_index) == ITEMS


def test_a_token_for_reading_allows_no_changes(make_fresh: Make) -> None:
    call = make_fresh(writable=True, token=TOKEN, write_token="another-" + TOKEN)
    read, write = {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer another-{TOKEN}"}
    assert call("GET", "/api/v1/items/item-7", headers=read).status == 200
    assert call("DELETE", "/api/v1/items/item-7", headers=read).code == "read_only"
    assert call("DELETE", "/api/v1/items/item-7", headers=write).status == 200


def test_exports(client: Make, index: ua.Index, tmp_path: Any) -> None:
    call = client(export_items=ITEMS)
    rows = call("POST", "/api/v1/export", {"format": "json"}).json["items"]
    assert [row["key"] for row in rows] == [item.key for item in index.items(limit=100)]
    answer = call("POST", "/api/v1/export", {"format": "csv", "where": "number < 3"})
    assert answer.headers["content-disposition"] == 'attachment; filename="unialign-selection.csv"'
    table = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [row["key"] for row in table] == ["a/b", "Igel äöü 刺猬", "100%"]
    # A spreadsheet would run it as a formula.
    assert {row["shop"] for row in table} == {"'=1+1"}
    search = {"parts": [{"item": "item-7"}], "k": 2}
    found = call("POST", "/api/v1/export", {"what": "results", "search": search}).json["items"]
    assert [row["key"] for row in found] == [hit["key"] for hit in call("POST", PATH, search).json["results"]]
    packed = call("POST", "/api/v1/export", {"format": "store.zip", "keys": ["item-7", "item-8"]}).body
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path)
    store = ua.data.EmbeddingStore.open(tmp_path / "store")
    np.testing.assert_allclose(store.array("image")[0], index.get("item-7").rows["image"], atol=1e-6)
    parquet = pytest.importorskip("pyarrow.parquet")
    read = parquet.read_table(io.BytesIO(call("POST", "/api/v1/export", {"format": "parquet"}).body))
    assert read.column("number").to_pylist() == list(range(ITEMS))
    assert call("POST", "/api/v1/export", {"keys": ["nothing"]}).code == "unknown_item"
    assert call("POST", "/api/v1/export", {"what": "results"}).code == "bad_request"
    assert client(export_items=ITEMS - 1)("POST", "/api/v1/export", {}).code == "too_many_items"


def test_readiness_and_description(make_fresh: Make, fresh_index: ua.Index) -> None:
    call = make_fresh()
    assert call("GET", "/readyz").json == {"ready": True, "generation": fresh_index.generation}
    info = call("GET", "/api/v1/info").json
    assert info["writable"] is False
    (one,) = info["indexes"]
    assert (one["items"], one["dim"], one["labels"]) == (ITEMS, DIM, {"even": 20, "odd": 20})
    kinds = {entry["name"]: (entry["encoder"], entry["media"]) for entry in one["modalities"]}
    assert kinds == {"text": (True, True), "image": (True, True), "audio": (True, False)}
    fresh_index.close()
    gone = make_fresh()("GET", "/readyz")
    assert (gone.status, gone.code) == (503, "not_ready")


def test_jobs_run_one_at_a_time_and_can_be_cancelled(client: Make) -> None:
    import threading

    from unialign.serve._errors import ApiError
    from unialign.serve._jobs import Jobs, Progress

    jobs, go = Jobs(2, 3600.0), threading.Event()

    def work(progress: Progress) -> dict[str, int]:
        assert go.wait(20)
        for step in range(5):
            progress(step, 5)
        return {"answer": 42}

    first = jobs.submit("work", work, key="same")
    while first.state == "waiting":
        time.sleep(0.001)
    assert jobs.submit("work", work, key="same") is first
    second, third = jobs.submit("work", work), jobs.submit("fail", lambda progress: math.sqrt(-1))
    with pytest.raises(ApiError, match="are waiting"):
        jobs.submit("work", work)
    assert jobs.cancel(second.id).state == "cancelled"
    go.set()
    for job in (first, third):
        assert job.future is not None
        job.future.result(20)
    assert first.to_dict()["result"] == {"answer": 42}
    assert third.to_dict()["error"]["code"] == "internal"
    running = jobs.submit("work", work)
    jobs.cancel(running.id)
    assert running.future is not None
    if not running.future.cancelled():
        running.future.result(20)
    assert running.state == "cancelled"
    with pytest.raises(ApiError, match="no such job"):
        jobs.get("unknown")
    jobs.close()
    forgetful = Jobs(2, 1e-9)
    done = forgetful.submit("work", lambda progress: {})
    assert done.future is not None
    done.future.result(20)
    time.sleep(0.001)
    with pytest.raises(ApiError, match="no such job"):
        forgetful.get(done.id)
    forgetful.close()


def test_generation_needs_a_decoder(client: Make) -> None:
    answer = client()("POST", "/api/v1/generate", {"parts": [{"text": "a"}]})
    assert (answer.status, answer.code) == (409, "no_decoder")


def test_the_dialects_are_mounted_with_their_own_errors(client: Make, index: ua.Index) -> None:
    call = client({"emoji": index})
    assert [one["id"] for one in call("GET", "/v1/models").json["data"]] == ["emoji"]
    answer = call("POST", "/v1/embeddings", {"model": "emoji", "input": "a cat"}).json
    expected = index.encode({"text": ["a cat"]})["text"][0].numpy()
    np.testing.assert_allclose(answer["data"][0]["embedding"], expected, atol=1e-6)
    wrong = call("POST", "/v1/embeddings", {"model": "other", "input": "a cat"})
    assert (wrong.status, wrong.json["error"]["code"]) == (404, "no_index")
    assert set(wrong.json["error"]) == {"message", "type", "param", "code"}
    wrong = call("POST", "/v2/embed", {"model": "emoji", "texts": "a"})
    assert (wrong.status, set(wrong.json)) == (422, {"message"})
    found = call("POST", "/v2/embed", {"model": "emoji", "texts": ["a cat"]}).json
    np.testing.assert_allclose(found["embeddings"]["float"][0], expected, atol=1e-6)
    bad = call("POST", "/v2/embed", b"{x", headers={"content-type": "application/json"})
    assert (bad.status, json.loads(bad.body)["message"]) == (400, "the body is not valid JSON")
