"""Configure the tests to use one thread, no network and deterministic Hypothesis examples."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Child processes inherit this variable; `make test` sets it before torch is imported.
os.environ["OMP_NUM_THREADS"] = os.environ.get("UNIALIGN_TEST_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from unialign import registry

THREADS = os.environ["OMP_NUM_THREADS"]

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, max_examples=25)
settings.load_profile("deterministic")


def _is_here(host: str) -> bool:
    if host.startswith(("127.", "::1", "localhost")):
        return True
    # A Ray cluster on this machine has the address of its network card, to which only this machine can bind.
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as own:
            own.bind((host, 0))
    except OSError:
        return False
    return True


def _stay_local(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        # Internet addresses are tuples (host, port, ...); addresses of UNIX sockets are paths.
        if isinstance(address, tuple) and not _is_here(str(address[0])):
            raise RuntimeError(f"tests must not reach the network, but one connects to {address}")


sys.addaudithook(_stay_local)

if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Background jobs of a shell ignore SIGINT, and the child processes of the tests would also ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(int(THREADS))


@pytest.fixture(autouse=True)
def _no_plug_ins_of_other_tests() -> Iterator[None]:
    before = registry.registered()
    yield
    registry._registered.clear()
    registry._registered.update(before)


@pytest.fixture
def golden() -> dict[str, Tensor]:
    """Return the float64 batch of the golden values, with three modalities of shape (4, 5) that are not normalized."""
    i, k = (torch.arange(1, n + 1, dtype=torch.float64) for n in (4, 5))
    rows = [torch.sin(i[:, None] * k) + 0.5 * torch.sin(3 * m + 2 * i[:, None] + 5 * k[None, :] * m) for m in (1, 2, 3)]
    return {f"z{m}": x for m, x in enumerate(rows)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-api", action="store_true", help="write tests/public_api.txt again")
