"""The command on two processes, as torchrun or srun start it: one run, also when a process is killed in the middle."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from train_cases import tiny_store

EPOCHS = "60"
SETTINGS = ("--objective", "unialign", "--anchor", "image", "--epochs", EPOCHS, "--dim", "8", "--batch-size", "8")
SETTINGS += ("--device", "cpu", *["--logging-steps", "1", "--hidden", "16", "--lr", "0.01", "--save-steps", "4"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "tiny"
    tiny_store(path=path)
    return path


def command(store: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "unialign", "train", str(store), "--out", str(out), *SETTINGS]


def job(words: list[str], *, processes: int = 2) -> list["subprocess.Popen[str]"]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            words,
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def ends(started: list["subprocess.Popen[str]"], *, seconds: float) -> list[tuple[int, str]]:
    try:
        return [(process.wait(seconds), process.stdout.read()) for process in started if process.stdout]
    finally:
        for process in started:
            process.kill()


def history(out: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "step"]


def wait_for(out: Path, step: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (out / "log.jsonl").exists() and any(record["step"] >= step for record in history(out)):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def losses(out: Path) -> list[float]:
    assert [record["step"] for record in history(out)] == list(range(1, int(EPOCHS) * 3 + 1))
    return [record["loss"] for record in history(out)]


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two processes that nobody disturbs."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert [status for status, _ in ends(job(command(store, out)), seconds=100)] == [0, 0]
    return out


def test_torchrun_trains_what_one_process_trains(store: Path, tmp_path: Path) -> None:
    """A whole run, 180 steps: the same curve within 1e-4, and one folder with space, results and report."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    alone, both = command(store, tmp_path / "alone"), command(store, tmp_path / "both")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    running = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for words in (alone, [*torchrun, *both[1:]])
    ]
    one, two = ends(running, seconds=100)
    assert one[0] == 0, one[1]
    assert two[0] == 0, two[1]
    assert losses(tmp_path / "both") == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)
    assert two[1].count("on 2 processes") == 1
    assert two[1].count("Report: ") == 1
    found = [
        json.loads((tmp_path / name / "results.json").read_text())["runs"][0]["metrics"] for name in ("alone", "both")
    ]
    assert found[1]["modality_gap"] == pytest.approx(found[0]["modality_gap"], abs=1e-3)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_job_and_the_same_command_continues(
    store: Path, whole: Path, tmp_path: Path, killed: int
) -> None:
    out = tmp_path / "run"
    started = job(command(store, out))
    wait_for(out, 30)
    started[killed].send_signal(signal.SIGKILL)
    results = ends(started, seconds=30)
    assert results[killed][0] == -signal.SIGKILL
    status, text = results[1 - killed]
    assert status != 0
    assert f"process {killed} of 2" in text
    assert not (out / "space").exists()
    assert [status for status, _ in ends(job(command(store, out)), seconds=100)] == [0, 0]
    assert losses(out) == losses(whole)  # bit by bit


def test_a_signal_to_one_process_stops_all_after_the_same_step(store: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    started = job(command(store, out))
    wait_for(out, 30)
    started[1].send_signal(signal.SIGTERM)
    results = ends(started, seconds=30)
    assert [status for status, _ in results] == [143, 143]
    assert "the same command continues" in results[0][1]
    assert [status for status, _ in ends(job(command(store, out)), seconds=100)] == [0, 0]
    assert losses(out) == losses(whole)


def test_torchrun_of_another_command_is_refused(tmp_path: Path) -> None:
    """As many copies would write one folder."""
    for status, text in ends(job([sys.executable, "-m", "unialign", "evaluate", "a", "b"]), seconds=60):
        assert status == 2
        assert "only `train` works on many processes" in text
