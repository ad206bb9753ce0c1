"""Test runs that receive a signal or are killed: what is kept, and that no process remains."""

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import embed_prepare
import unialign as ua
from embed_cases import content, text_encoder, text_items
from processes import context

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc"),
]

TEXTS = [f"text {i}" for i in range(120)]


def embed(out: Path, seconds: float, workers: int) -> None:
    encoder = text_encoder(prepare=embed_prepare.Slowly(seconds))
    ua.embed(
        text_items(TEXTS),
        {"text": encoder},
        out,
        batch_size=4,
        part_cells=8,
        threads=1,
        workers=workers,
        progress="none",
    )


def _run(out: Path, seconds: float, mark: str, messages: Path) -> None:
    # Workers inherit the variable, by which the test finds them.
    os.environ["UNIALIGN_TEST_MARK"] = mark
    os.dup2(os.open(messages, os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    embed(out, seconds, 2)


def start(folder: Path, seconds: float) -> tuple[Any, str]:
    """Start a run with two workers in a process; return it and a mark of its workers."""
    mark = uuid.uuid4().hex
    process = context().Process(target=_run, args=(folder / "store", seconds, mark, folder / "messages"))
    process.start()
    return process, mark


def workers_with(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables, state = (
                (path / "environ").read_bytes(),
                (path / "stat").read_text().rpartition(")")[2].split()[0],
            )
        except OSError:
            continue
        if mark.encode() in variables and state != "Z":
            found.append(int(path.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("seconds", [0.05, 300])
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, seconds: float) -> None:
    """Also if a decoder does not return."""
    process, mark = start(tmp_path, seconds)
    try:
        assert wait_for(lambda: len(workers_with(mark)) == 2)
        time.sleep(0.5)  # let the workers begin
        process.kill()
        process.join()
        assert wait_for(lambda: not workers_with(mark), 2)
    finally:
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_part(tmp_path: Path, number: int, code: int) -> None:
    process, mark = start(tmp_path, 0.05)
    parts = tmp_path / ".store.embed" / "parts" / "text"
    try:
        assert wait_for(lambda: len(list(parts.glob("*.safetensors"))) >= 2)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == code
        assert wait_for(lambda: not workers_with(mark), 2)
    finally:
        process.kill()
    assert "finished parts are kept: run the same command again to continue" in (tmp_path / "messages").read_text()
    assert 2 <= len(list(parts.glob("*.safetensors"))) < len(TEXTS) / 8
    assert not list(parts.glob(".*"))
    embed(tmp_path / "store", 0, 0)
    embed(tmp_path / "whole", 0, 0)
    assert content(tmp_path / "store") == content(tmp_path / "whole")
