"""Test `unialign serve`, in a process of its own on the loopback."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import unialign as ua
from unialign.cli import main

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with ua.Index.create("my-index", dim=8, modalities=["image", "text"]) as index:
        index.add(
            {name: rng.standard_normal((30, 8)) for name in ("image", "text")}, keys=[f"item-{i}" for i in range(30)]
        )
    return tmp_path


def request(port, path, token=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_link_works_and_a_signal_stops_the_service(here, number):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment.pop("UNIALIGN_TOKEN", None)
    command = [sys.executable, "-m", "unialign", "serve", "my-index", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        lines = []
        while not lines or not lines[-1].startswith("serving at "):
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        assert lines[0].startswith("my-index: 30 items, 2 modalities (image, text)")
        link = lines[-1].removeprefix("serving at ").strip()
        assert link.startswith("http://127.0.0.1:")
        port = int(link.split(":")[2].split("/")[0])
        token = link.rpartition("=")[2]
        assert len(token) >= 20
        assert request(port, "/healthz")[0] == 200
        assert request(port, "/api/v1/info")[0] == 401
        status, content = request(port, "/api/v1/info", token)
        assert status == 200
        assert [one["name"] for one in json.loads(content)["indexes"]] == ["my-index"]
        body = json.dumps({"parts": [{"item": "item-3"}], "k": 2})
        status, content = request(port, "/api/v1/search", token, body)
        assert status == 200
        assert len(json.loads(content)["results"]) == 2
        process.send_signal(number)
        printed, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert printed.splitlines()[-1] == "stopped"
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_errors_say_what_to_do(here, capsys):
    for words, message in [
        (["nowhere"], "'nowhere' is neither a folder nor a data set"),
        (["my-index", "--token-file", "none.txt"], "none.txt"),
        (["my-index", "my-index", "--mcp"], "--mcp serves one SOURCE"),
        (["digits", "--writable"], "digits is not the folder of an index"),
    ]:
        assert main(["serve", *words, "--no-browser"]) == 2, words
        assert message in capsys.readouterr().err, words


def test_an_address_that_others_can_reach_needs_a_token(here, capsys, monkeypatch):
    monkeypatch.delenv("UNIALIGN_TOKEN", raising=False)
    assert main(["serve", "my-index", "--host", "0.0.0.0", "--no-browser", "--port", "0"]) == 2
    assert "--token-file" in capsys.readouterr().err


def test_a_taken_port_is_named(here, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "my-index", "--port", str(port), "--no-browser"]) == 2
    captured = capsys.readouterr()
    assert str(port) in captured.err
    assert "--port" in captured.err
    assert "serving at" not in captured.out


def test_a_token_of_the_environment_or_a_file_is_used(here, monkeypatch):
    from unialign.cli._serve import _tokens

    def options(host, file=None):
        return SimpleNamespace(host=host, token_file=file)

    monkeypatch.delenv("UNIALIGN_TOKEN", raising=False)
    first, second = (_tokens(options("127.0.0.1"))[0] for _ in range(2))
    assert first != second
    reader, writer = "r" * 40, "w" * 40
    (here / "tokens.txt").write_text(f"read {reader}\nwrite {writer}\n")
    (here / "tokens.txt").chmod(0o600)
    assert _tokens(options("0.0.0.0", here / "tokens.txt")) == (reader, writer)
    monkeypatch.setenv("UNIALIGN_TOKEN", reader)
    assert _tokens(options("0.0.0.0")) == (reader, None)


def test_indexes_of_the_same_name_get_numbers():
    from unialign.cli._serve import _free

    assert [_free("a", {}), _free("a", {"a": None}), _free("a", {"a": None, "a-2": None})] == ["a", "a-2", "a-3"]
