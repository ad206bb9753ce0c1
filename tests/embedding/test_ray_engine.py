"""Test the Ray engine on a cluster of two nodes on this machine: equal bytes, actors and drivers that are killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unialign as ua
from embed_cases import content, small_encoders, small_items, write_image
from unialign.errors import ConfigError, DataError
from unialign.items import Items

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENCODERS = {"image": "builtin:color", "text": "builtin:chars"}
OPTIONS = {"batch_size": 2, "part_cells": 2, "threads": 1, "progress": "none"}
DRIVER = """
import sys, unialign as ua
table, out, address = sys.argv[1:]
encoders = {"image": "builtin:color", "text": "builtin:chars"}
options = {"batch_size": 2, "part_cells": 2, "threads": 1, "progress": "none"}
ua.embed(table, encoders, out, engine="ray", ray_address=address, workers=1, **options)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start two nodes of two CPUs each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    cluster.add_node(**options)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    folder = tmp_path_factory.mktemp("media")
    small_items(folder)
    (folder / "3.png").write_text("no image")
    records = [{"id": f"{i}", "image": f"{i % 12}.png", "text": f"text number {i}"} for i in range(60)]
    records[7]["image"] = "missing.png"
    table = Items.from_records(records, kinds={"image": "image", "text": "text"}, root=folder)
    return table.save(folder / "table")


@pytest.fixture(scope="module")
def whole(items: Items, tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = ua.embed(items, ENCODERS, tmp_path_factory.mktemp("whole") / "store", workers=0, **OPTIONS)
    return content(store.path)


def parts(out: Path) -> int:
    return len(list((out.parent / f".{out.name}.embed" / "parts").rglob("*.safetensors")))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def actors() -> list[int]:
    """Return the processes of the actors that compute parts."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker(MapBatches(_Work))" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_two_nodes_give_the_bytes_of_the_local_engine(address: str, items: Items, whole: Any, tmp_path: Path) -> None:
    store = ua.embed(items, ENCODERS, tmp_path / "store", engine="ray", ray_address=address, workers=3, **OPTIONS)
    assert content(store.path) == whole
    assert store.provenance["columns"]["image"]["input"]["broken"] == {"missing-file": 1, "undecodable": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def start(items: Items, address: str, out: Path) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-c", DRIVER, str(items.roots[0] / "table"), str(out), address]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


def test_an_actor_that_is_killed(address: str, items: Items, whole: Any, tmp_path: Path) -> None:
    out = tmp_path / "store"
    process = start(items, address, out)
    try:
        assert wait_for(lambda: parts(out) >= 2)
        killed = actors()
        for actor in killed:
            os.kill(actor, signal.SIGKILL)
        assert killed
        assert process.wait(300) == 0
    finally:
        process.kill()
    assert content(out) == whole


def test_a_driver_that_is_killed_is_continued_by_the_local_engine(
    address: str, items: Items, whole: Any, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    process = start(items, address, out)
    try:
        assert wait_for(lambda: parts(out) >= 2)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    options = {**OPTIONS, "threads": "auto"}
    ua.embed(items, ENCODERS, out, resume="required", workers=1, **options)
    assert content(out) == whole


def test_too_few_cpus(address: str, items: Items, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 Ray actors need 5 CPUs, one of them for Ray, but the cluster has 4 CPUs"):
        ua.embed(items, ENCODERS, tmp_path / "store", engine="ray", ray_address=address, workers=4, **OPTIONS)


def test_an_address_without_a_cluster(items: Items, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for given in (address, f"ray://{address}"):
        with pytest.raises(ConfigError, match=f"cannot connect to the Ray cluster '{given}'"):
            ua.embed(items, ENCODERS, tmp_path / "store", engine="ray", ray_address=given, workers=1, **OPTIONS)


def test_encoders_that_other_machines_cannot_load(address: str, items: Items, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder of 'image' was passed to wrap.*engine='local'"):
        ua.embed(items, small_encoders(), tmp_path / "store", engine="ray", ray_address=address, **OPTIONS)


def test_errors_of_a_part(address: str, tmp_path: Path) -> None:
    write_image(tmp_path / "media" / "0.png", 0)
    table = Items.from_records([{"image": "0.png"}], kinds={"image": "image"}, root=tmp_path / "media")
    (tmp_path / "media").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"the folder .*media cannot be read"):
        ua.embed(
            table,
            {"image": "builtin:color"},
            tmp_path / "store",
            engine="ray",
            ray_address=address,
            workers=1,
            **OPTIONS,
        )
