"""Test the service in a process of its own, over loopback sockets: slow clients, hang-ups, signals, ports."""

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unialign as ua
from serve_support import TOKEN, make_space
from unialign.errors import ConfigError
from unialign.serve._run import _listen, new_token, read_tokens

SCRIPT = Path(__file__).with_name("run_service.py")
BODY = json.dumps({"parts": [{"item": "item-7"}], "k": 3}).encode()
JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def service(index: ua.Index, **settings: Any) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Yield the process, its port and its link."""
    given = json.dumps({"burst": 0, "connections": 0, **settings})
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(index.path), given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert link.startswith("http://127.0.0.1:"), process.stderr.read() if process.stderr else link
        yield process, int(link.split(":")[2].split("/")[0]), link
    finally:
        process.kill()
        process.communicate()


def post(port: int, body: bytes = BODY, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/api/v1/search", body, {**JSON, **headers})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content)


def raw(port: int, *pieces: bytes, wait: float = 0.0, until_answer: bool = False) -> bytes:
    """Send pieces with pauses, and return all that comes until the service closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        for piece in pieces:
            if until_answer and select.select([one], [], [], 0)[0]:
                break  # The service has answered and closed; sending more would discard its answer.
            one.sendall(piece)
            time.sleep(wait)
        found = b""
        with contextlib.suppress(ConnectionError):
            while data := one.recv(65_536):
                found += data
        return found


HEAD = b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.slow
def test_slow_clients_are_cut_off_and_others_are_served(index: ua.Index) -> None:
    with service(index, header_seconds=0.3, body_seconds=0.3, body_bytes=1000) as (process, port, _):
        assert raw(port).startswith(b"HTTP/1.1 408")
        assert raw(port, b"GET / HT").startswith(b"HTTP/1.1 408")
        drip = raw(port, *(b"X-A: b\r\n" if i else HEAD for i in range(5)), wait=0.1, until_answer=True)
        assert drip.startswith(b"HTTP/1.1 408")
        assert b'"slow_body"' in raw(port, HEAD + b"Content-Length: 100\r\n\r\n{")
        assert b'"slow_body"' in raw(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        large = raw(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"400\r\n" + b" " * 1024 + b"\r\n") * 2)
        assert large.startswith(b"HTTP/1.1 413")
        assert raw(port, HEAD + b"Content-Length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 413")
        assert raw(port, b"\x16\x03\x01 not http\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert raw(port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")
        # A second request on the same connection has a time limit of its own.
        twice = raw(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /hea", wait=0.1)
        assert twice.startswith(b"HTTP/1.1 200")
        assert b"408 Request Timeout" in twice
        status, found = post(port)
        assert (status, len(found["results"])) == (200, 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT)


@pytest.mark.slow
def test_hang_ups_are_not_computed(index: ua.Index) -> None:
    with service(index, computing=1, batch=1, slow=0.3, waiting=20) as (_, port, _link):
        first = socket.create_connection(("127.0.0.1", port))
        first.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        time.sleep(0.1)
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port)) as one:
                one.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
                time.sleep(0.005)
        started = time.monotonic()
        status, _found = post(port)
        # Ten computations would take 3 s.
        assert status == 200
        assert time.monotonic() - started < 2.0
        first.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        cancelled = int(text.split("\nunialign_cancelled_total ")[1].split()[0])
        assert cancelled >= 9


@pytest.mark.slow
def test_sigterm_lets_requests_end(index: ua.Index) -> None:
    with service(index, slow=0.5) as (process, port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/api/v1/search", BODY, JSON)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(json.loads(answer.read())["results"]) == 3
        connection.close()
        assert process.wait(20) in (0, -signal.SIGTERM)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=1)


@pytest.mark.slow
def test_the_link_carries_the_token_in_its_fragment(index: ua.Index) -> None:
    with service(index, token=TOKEN) as (_, port, link):
        assert link == f"http://127.0.0.1:{port}/#token={TOKEN}"
        assert post(port)[0] == 401
        assert post(port, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_taken_port_is_an_error_that_names_a_free_one(index: ua.Index) -> None:
    app = ua.serve.app(index)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1 port {port} .*--port \d+"):
            ua.serve.run(app, port=port)


def test_other_computers_need_a_token(index: ua.Index) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        ua.serve.run(ua.serve.app(index), host="0.0.0.0", port=0)


def test_tokens_and_token_files(tmp_path: Path) -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert len(first) >= 43
    path = tmp_path / "token"
    path.write_text(f"{first}\n")
    path.chmod(0o600)
    assert read_tokens(path) == (first, None)
    path.write_text(f"read {first}\nwrite {second}\n")
    assert read_tokens(path) == (first, second)
    for text in ("", "short", f"write {first}", f"read {first}\nread {second}", f"{first} {second} x", "read x"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_tokens(path)
    path.write_text(first)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokens(tmp_path / "nothing")


@pytest.mark.slow
def test_a_reader_shows_what_another_process_adds(tmp_path: Path) -> None:
    import numpy as np

    writer = ua.Index.create(tmp_path / "index", space=make_space())
    row = np.eye(8, dtype=np.float32)
    writer.add({"text": row[:4]}, keys=["a", "b", "c", "d"])
    with writer, service(writer) as (_, port, _link):
        body = json.dumps({"parts": [{"vector": row[5].tolist(), "modality": "text"}], "k": 1}).encode()
        assert post(port, body)[1]["results"][0]["key"] != "new"
        writer.add({"text": row[5:6]}, keys=["new"])
        deadline = time.monotonic() + 10
        while post(port, body)[1]["results"][0]["key"] != "new":
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_answers_are_sent_without_delay() -> None:
    """asyncio sets TCP_NODELAY for sockets whose protocol is known to be TCP."""
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
