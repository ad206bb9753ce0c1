"""Test what the front checks before it reads a body: host, origin, token, route, size, admission, times."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import unialign as ua
from serve_support import TOKEN, Answer, Client, multipart
from unialign.errors import ConfigError

Make = Callable[..., Client]
SEARCH = {"parts": [{"item": "item-7"}], "k": 3}
PATH = "/api/v1/search"


def test_every_answer_has_security_headers_and_a_request_id(client: Make) -> None:
    call = client(token=TOKEN)
    for method, path in (("GET", "/healthz"), ("GET", "/nothing"), ("POST", PATH), ("GET", "/api/v1/info")):
        headers = call(method, path).headers
        assert len(headers["x-request-id"]) == 16
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "localhost."])
def test_a_foreign_host_gets_421_before_anything_else(client: Make, host: str) -> None:
    answer = client(token=TOKEN)("GET", "/healthz", headers={"host": host})
    assert (answer.status, answer.code) == (421, "foreign_host")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST:8000", "[::1]:8000", "[::1]"])
def test_own_hosts_are_accepted_with_any_port(client: Make, host: str) -> None:
    assert client()("GET", "/healthz", headers={"host": host}).status == 200


def test_two_hosts_are_no_host(client: Make) -> None:
    assert client()("GET", "/healthz", headers={"host": "localhost, evil.example"}).status == 421


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9000", "file://"])
def test_a_foreign_origin_gets_403_on_every_method(client: Make, method: str, origin: str) -> None:
    answer = client()(method, PATH, headers={"origin": origin})
    assert (answer.status, answer.code) == (403, "foreign_origin")
    assert "access-control-allow-origin" not in answer.headers


def test_origins_that_are_named_get_exact_headers(client: Make) -> None:
    call = client(origins=("https://good.example",), token=TOKEN)
    answer = call("OPTIONS", PATH, headers={"origin": "https://good.example"})
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    assert "access-control-allow-credentials" not in answer.headers
    # Without a token, the answer is an error that the page can read.
    answer = call("POST", PATH, SEARCH, headers={"origin": "https://good.example"})
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    assert call("POST", PATH, headers={"origin": "https://good.example.evil.example"}).status == 403
    with pytest.raises(ConfigError, match="exact origins"):
        client(origins=("*",))


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong-token", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
)
def test_a_missing_or_wrong_token_gets_401(client: Make, header: str | None) -> None:
    call = client(token=TOKEN)
    for method, path in (("POST", PATH), ("GET", "/api/v1/info"), ("GET", "/openapi.json"), ("GET", "/nothing")):
        answer = call(method, path, headers={"authorization": header})
        assert (answer.status, answer.code) == (401, "bad_token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.body.decode()


def test_the_token_in_a_query_string_does_not_count(client: Make) -> None:
    assert client(token=TOKEN)("GET", f"/api/v1/info?token={TOKEN}").status == 401


def test_the_right_token_is_accepted_and_open_routes_need_none(client: Make) -> None:
    call = client(token=TOKEN)
    assert call("POST", PATH, SEARCH, headers={"authorization": f"bearer {TOKEN}"}).status == 200
    assert call("GET", "/healthz").json == {"status": "ok"}
    assert call("GET", "/readyz").status == 200
    # Metrics are open on this computer only.
    assert call("GET", "/metrics").status == 200
    assert call("GET", "/metrics", client="192.0.2.1").status == 401


def test_a_weak_token_is_an_error(client: Make) -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        client(token="short")


def test_unknown_routes_and_methods(client: Make) -> None:
    call = client()
    assert call("GET", "/api/v2/search").code == "no_route"
    assert (call("GET", PATH).status, call("GET", PATH).code) == (405, "bad_method")
    assert call("TRACE", PATH).status == 405
    assert call("GET", "/api/v1/search/").status == 404


@pytest.mark.parametrize("size", [999, 1000, 1001])
def test_the_limit_of_json_bodies(client: Make, size: int) -> None:
    call = client(body_bytes=1000)
    body = b'{"parts":[{"item":"item-7"}]}'.ljust(size)
    expected = 413 if size > 1000 else 200
    json = {"content-type": "application/json"}
    answer = call("POST", PATH, body, headers=json)
    assert answer.status == expected
    if expected == 413:
        assert (answer.code, answer.json["error"]["limit"]) == ("too_large", 1000)
        assert answer.headers["connection"] == "close"
    # In chunks, without a length.
    assert call("POST", PATH, chunks=[body[:500], body[500:]]).status == expected
    # A length that understates the body does not help.
    assert call("POST", PATH, chunks=[body[:500], body[500:]], headers={"content-length": "10"}).status == expected


def test_a_body_of_another_type_or_of_a_get_is_an_error(client: Make) -> None:
    call = client()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = call("POST", PATH, b"{}", headers={"content-type": kind})
        assert (answer.status, answer.code) == (415, "bad_content_type")
    json = {"content-type": "application/json"}
    assert call("GET", "/api/v1/info", b"{}", headers=json | {"content-length": "2"}).status == 400
    assert call("POST", PATH, b"{}", headers=json | {"content-length": "two"}).code == "bad_length"


def test_multipart_needs_its_header(client: Make) -> None:
    body, headers = multipart(SEARCH, {})
    call = client()
    assert call("POST", "/api/v1/search/files", body, headers=headers).status == 200
    answer = call("POST", "/api/v1/search/files", body, headers=headers | {"x-unialign": None})
    assert (answer.status, answer.code) == (403, "missing_header")


def test_a_body_that_never_ends_gets_408(client: Make) -> None:
    call = client(body_seconds=0.05)
    answer = call("POST", PATH, chunks=[b'{"parts"'], stall=True)
    assert (answer.status, answer.code) == (408, "slow_body")
    # The place is free again.
    assert call.app.lanes["search"].inside == 0


def test_a_fast_long_body_gets_more_time_than_a_slow_one(client: Make) -> None:
    # 1 MiB beyond the first 256 KiB at 10 MiB/s is 0.1 s more.
    call = client(body_seconds=0.02, body_rate=10.0 * (1 << 20), body_bytes=4 << 20)
    started = time.monotonic()
    assert call("POST", PATH, chunks=[b" " * (5 << 18)], stall=True).status == 408
    assert time.monotonic() - started > 0.1


def test_the_bytes_of_all_bodies_are_bounded(client: Make) -> None:
    call = client(buffered_bytes=1000)
    headers = {"content-type": "application/json"}
    assert call("POST", PATH, b" " * 1001, headers=headers).status == 503
    assert call("POST", PATH, SEARCH).status == 200


def blocked(call: Client) -> tuple[Any, Any]:
    """Make searches wait; return functions to wait until one computes, and to let them go."""
    import threading

    started, go = threading.Event(), threading.Event()
    search = ua.Index.search

    def slow(*arguments: Any, **options: Any) -> Any:
        started.set()
        assert go.wait(20)
        return search(*arguments, **options)

    return slow, (started, go)


def test_a_full_queue_gets_503_and_a_closed_connection(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    call = client(computing=1, batch=1, waiting=2, wait_seconds=20.0)
    slow, (_, go) = blocked(call)
    monkeypatch.setattr(ua.Index, "search", slow)

    async def crowd() -> list[Any]:
        first = [asyncio.ensure_future(call.send("POST", PATH, SEARCH)) for _ in range(3)]
        await asyncio.sleep(0.05)
        rejected = await call.send("POST", PATH, SEARCH)
        # Reads of items have places of their own.
        assert (await call.send("GET", "/api/v1/items?limit=1")).status == 200
        go.set()
        return [rejected, *await asyncio.gather(*first)]

    rejected, *answered = call.run(crowd())
    assert (rejected.status, rejected.code) == (503, "busy")
    assert rejected.headers["retry-after"] == "20"
    assert rejected.headers["connection"] == "close"
    assert [answer.status for answer in answered] == [200] * 3
    assert call("POST", PATH, SEARCH).status == 200
    lane = call.app.lanes["search"]
    assert (lane.inside, lane.computing, lane.queued) == (0, 0, 0)


def test_a_request_waits_no_longer_than_the_limit(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    call = client(computing=1, batch=1, waiting=2, wait_seconds=0.05)
    slow, (_, go) = blocked(call)
    monkeypatch.setattr(ua.Index, "search", slow)

    async def crowd() -> list[Any]:
        first = asyncio.ensure_future(call.send("POST", PATH, SEARCH))
        await asyncio.sleep(0.02)
        waited = await call.send("POST", PATH, SEARCH)
        go.set()
        return [waited, await first]

    waited, first = call.run(crowd())
    assert (waited.status, waited.code, first.status) == (503, "busy", 200)


def test_a_client_that_hangs_up_while_it_waits_is_not_computed(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    call = client(computing=1, batch=1, waiting=8)
    counted = []
    slow, (_, go) = blocked(call)

    def counting(*arguments: Any, **options: Any) -> Any:
        counted.append(1)
        return slow(*arguments, **options)

    monkeypatch.setattr(ua.Index, "search", counting)

    async def crowd() -> list[Any]:
        gone = asyncio.Event()
        first = asyncio.ensure_future(call.send("POST", PATH, SEARCH))
        await asyncio.sleep(0.05)
        leaving = [asyncio.ensure_future(call.send("POST", PATH, SEARCH, hang_up=gone)) for _ in range(3)]
        await asyncio.sleep(0.02)
        gone.set()
        left = await asyncio.gather(*leaving)
        go.set()
        return [await first, *left]

    first, *left = call.run(crowd())
    assert first.status == 200
    assert [answer.status for answer in left] == [0] * 3
    assert len(counted) == 1
    assert "unialign_cancelled_total 3" in call("GET", "/metrics").body.decode()


def test_a_client_that_hangs_up_while_its_body_is_read_frees_its_place(client: Make) -> None:
    call = client()

    async def leave() -> Any:
        gone = asyncio.Event()
        gone.set()
        return await call.send("POST", PATH, chunks=[b"{"], stall=True, hang_up=gone)

    assert call.run(leave()).status == 0
    assert call.app.lanes["search"].inside == 0


def test_an_answer_that_takes_too_long_keeps_its_place_until_it_ends(
    client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = client(computing=1, batch=1, waiting=0, request_seconds=0.05)
    slow, (started, go) = blocked(call)
    monkeypatch.setattr(ua.Index, "search", slow)

    async def crowd() -> list[Any]:
        late = await call.send("POST", PATH, SEARCH)
        assert started.is_set()
        computing = call.app.lanes["search"].computing
        go.set()
        for _ in range(200):
            if not call.app.lanes["search"].computing:
                break
            await asyncio.sleep(0.01)
        return [late, computing, call.app.lanes["search"].computing]

    late, computing, after = call.run(crowd())
    assert (late.status, late.code) == (503, "too_slow")
    assert (computing, after) == (1, 0)


def keys_of(answer: Answer) -> list[str]:
    return [hit["key"] for hit in answer.json["results"]]


def test_searches_that_wait_together_are_computed_together(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    call = client(computing=1, batch=16, waiting=16)
    sizes = []
    search = ua.Index.search

    def noting(self: ua.Index, queries: Any, **options: Any) -> Any:
        sizes.append(len(queries))
        time.sleep(0.02)
        return search(self, queries, **options)

    monkeypatch.setattr(ua.Index, "search", noting)
    keys = [f"item-{i}" for i in range(5, 15)]
    bodies = [{"parts": [{"item": key}], "k": 3} for key in keys]
    alone = [keys_of(call("POST", PATH, body)) for body in bodies]
    sizes.clear()
    answers = call.together(*(call.send("POST", PATH, body) for body in bodies))
    assert [keys_of(answer) for answer in answers] == alone
    assert sum(sizes) == len(bodies)
    assert len(sizes) <= 3
    # Other options are other batches, and an invalid query does not fail its neighbors.
    sizes.clear()
    mixed = [*bodies, {"parts": [{"item": "item-7"}, {"item": "item-7", "weight": -1}], "k": 3}, bodies[0] | {"k": 4}]
    answers = call.together(*(call.send("POST", PATH, body) for body in mixed))
    assert [answer.status for answer in answers] == [200] * 10 + [422, 200]
    assert answers[10].code == "cancelled_out"
    assert len(answers[11].json["results"]) == 4
    assert [keys_of(answer) for answer in answers[:10]] == alone


def test_the_rate_of_one_client_is_bounded(client: Make) -> None:
    call = client(burst=3, rate=0.01)
    assert [call("POST", PATH, SEARCH).status for _ in range(4)] == [200, 200, 200, 429]
    answer = call("POST", PATH, SEARCH)
    assert (answer.code, answer.headers["retry-after"], answer.headers["connection"]) == (
        "too_many_requests",
        "100",
        "close",
    )
    assert call("POST", PATH, SEARCH, client="192.0.2.7").status == 200
    # Only computations count.
    assert call("GET", "/api/v1/items?limit=1").status == 200


def test_the_requests_in_progress_of_one_client_are_bounded(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    call = client(connections=2)
    slow, (_, go) = blocked(call)
    monkeypatch.setattr(ua.Index, "search", slow)

    async def crowd() -> list[Any]:
        first = [asyncio.ensure_future(call.send("POST", PATH, SEARCH)) for _ in range(2)]
        await asyncio.sleep(0.05)
        rejected = await call.send("POST", PATH, SEARCH)
        other = await call.send("GET", "/healthz", client="192.0.2.7")
        go.set()
        return [rejected, other, *await asyncio.gather(*first)]

    rejected, other, *rest = call.run(crowd())
    assert (rejected.status, rejected.code, other.status) == (429, "too_many_connections", 200)
    assert [answer.status for answer in rest] == [200, 200]
    assert call("GET", "/healthz").status == 200


def test_a_failure_is_an_answer_with_an_id_and_without_a_cause(
    client: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret /path/of/the/server")

    monkeypatch.setattr(ua.Index, "search", fail)
    call = client()
    answer = call("POST", PATH, SEARCH)
    assert (answer.status, answer.code) == (500, "internal")
    assert "secret" not in answer.body.decode()
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-request-id"] in caplog.text
    assert "secret /path" in caplog.text


def test_metrics_count_requests_and_stages(client: Make) -> None:
    call = client()
    call("POST", PATH, SEARCH)
    call("GET", "/healthz", headers={"host": "evil.example"})
    text = call("GET", "/metrics").body.decode()
    assert 'unialign_requests_total{route="/api/v1/search",method="POST",status="200"} 1' in text
    assert 'unialign_rejected_total{reason="foreign_host"} 1' in text
    assert 'unialign_stage_seconds_count{stage="search"} 1' in text
    assert 'unialign_items{name="index"} 40' in text
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        assert line.startswith("# TYPE unialign_") or (name and float(value) >= 0)


def test_websockets_are_closed(client: Make) -> None:
    call = client()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    call.run(call.app({"type": "websocket"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
