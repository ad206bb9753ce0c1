"""Test which errors indicate a lost process, and that errors do not stop the watchdog."""

import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from processes import Pool
from unialign.distributed import _watchdog
from unialign.distributed._collectives import deserialize_error, first_error, serialize_error
from unialign.distributed._failures import BATCH, is_of_the_transport, naming_failures
from unialign.errors import DataError, DistributedError


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL error in: somewhere"),
        dist.DistNetworkError("cannot reach it"),
        DistributedError("process 1 is gone"),
        RuntimeError("[/src/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:123"),
        RuntimeError("Timed out waiting 1000ms for recv operation to complete"),
    ],
)
def test_connection_errors(error: Exception) -> None:
    assert is_of_the_transport(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot restore the stored state"),
        RuntimeError("expected peers of equal dim"),
        torch.OutOfMemoryError("CUDA out of memory; NCCL took the rest"),
        NotImplementedError("no timeout for this"),
        ValueError("a socket"),
        ConnectionResetError("a download of the data broke off"),
    ],
)
def test_other_errors_are_not_connection_errors(error: Exception) -> None:
    """Regression test: an error with the word "restore" was classified as a connection error of the store."""
    assert not is_of_the_transport(error)


def failing(rank: int, group: Any, doing: str | None) -> list[str]:
    said = []
    for error in (torch.OutOfMemoryError("too much"), RuntimeError("a wrong shape"), RuntimeError("gloo: closed")):
        try:
            with naming_failures(group, *([] if doing is None else [doing])):
                raise error
        except RuntimeError as raised:
            said.append(f"{type(raised).__name__}: {raised}")
    return said


@pytest.mark.parametrize("doing", [None, BATCH])
def test_errors_of_a_collective(pool: Pool, doing: str | None) -> None:
    """Regression test: an out-of-memory error inside a collective was reported as the end of another process."""
    memory, shape, gone = pool.run(failing, doing, processes=2)[1]
    assert (memory, shape) == ("OutOfMemoryError: too much", "RuntimeError: a wrong shape")
    assert gone.startswith(
        f"DistributedError: process 1 of 2 lost connection while it {doing or 'exchanged a message'}: "
    )
    assert ("call the loss the same number of times" in gone) == (doing == BATCH)


def test_errors_are_restored_on_other_processes() -> None:
    received = deserialize_error(serialize_error(DataError("torn")), 1, 3, did="read")
    assert (type(received), str(received)) == (DataError, "process 1 of 3 read: torn")
    received = deserialize_error(serialize_error(ZeroDivisionError("1/0")), 1, 3)
    assert (type(received), str(received)) == (DistributedError, "process 1 of 3: ZeroDivisionError: 1/0")
    wish = deserialize_error(serialize_error(SystemExit(143)), 0, 3)
    assert isinstance(wish, SystemExit)
    assert wish.code == 143
    assert isinstance(deserialize_error(serialize_error(KeyboardInterrupt()), 0, 3), KeyboardInterrupt)
    assert first_error([None, None]) is None
    assert (
        str(first_error([None, serialize_error(DataError("torn")), serialize_error(DataError("late"))]))
        == "process 1 of 3: torn"
    )


class Odd(dist.HashStore):
    answers = 0

    def multi_get(self, keys: list[str]) -> Any:
        self.answers += 1
        return ["no bytes"] * len(keys) if self.answers <= 3 else super().multi_get(keys)


def test_watchdog_continues_after_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Regression test: an error ended the watchdog's thread, so a healthy process was declared dead 15 s later."""
    store = Odd()
    store.set_timeout(timedelta(seconds=5))

    def rendezvous(addresses: Any, *, timeout: float, prepare: Any) -> Any:
        prepare(store)
        return store

    monkeypatch.setattr(_watchdog, "rendezvous", rendezvous)
    monkeypatch.setattr(_watchdog, "_BEAT", 0.01)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    watch = _watchdog.Watchdog([], timeout=5)
    end = time.monotonic() + 20
    while int(store.get("beat/0")) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    assert int(store.get("beat/0")) >= 8
    watch.leave()
    assert capsys.readouterr().err.count("the watchdog of process 0 continues after AttributeError") == 1
