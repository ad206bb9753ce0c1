"""Test the command on two processes, as torchrun or srun start it, and after a process is killed or stopped."""

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

from processes import start_command
from train_cases import tiny_store

EPOCHS = 60
STEPS = 3 * EPOCHS
SETTINGS = ("--objective", "unialign", "--anchor", "image", "--epochs", str(EPOCHS), "--dim", "8", "--batch-size", "8")
SETTINGS += ("--device", "cpu", "--logging-steps", "1", "--hidden", "16", "--lr", "0.01", "--save-steps", "4")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "tiny"
    tiny_store(path=path)
    return path


@pytest.fixture(scope="module")
def torchrun(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "together"
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unialign"]
    done = subprocess.run(
        [*words, *command(store, out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout + done.stderr


def command(store: Path, out: Path) -> list[str]:
    return ["train", str(store), "--out", str(out), *SETTINGS]


class Job:
    def __init__(self, words: list[str], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        folder.mkdir()
        self.outputs = [folder / f"{rank}.txt" for rank in range(2)]
        self.processes = [
            start_command(words, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, self.outputs[rank])
            for rank in range(2)
        ]

    def end(self, *, seconds: float) -> list[tuple[int, str]]:
        try:
            for process in self.processes:
                process.join(seconds)
            return [(p.exitcode, o.read_text()) for p, o in zip(self.processes, self.outputs, strict=True)]
        finally:
            for process in self.processes:
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
    assert [record["step"] for record in history(out)] == list(range(1, STEPS + 1))
    return [record["loss"] for record in history(out)]


def test_torchrun_gives_the_result_of_one_process(store: Path, torchrun: tuple[Path, str], tmp_path: Path) -> None:
    """The loss curves of 180 steps agree within 1e-4, and only one process writes the report."""
    together, output = torchrun
    alone = start_command(command(store, tmp_path / "alone"), {}, tmp_path / "alone.txt")
    alone.join(100)
    assert alone.exitcode == 0, (tmp_path / "alone.txt").read_text()
    assert losses(together) == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)
    assert output.count("on 2 processes") == 1
    assert output.count("Report: ") == 1
    found = [
        json.loads((out / "results.json").read_text())["runs"][0]["metrics"] for out in (tmp_path / "alone", together)
    ]
    assert found[1]["modality_gap"] == pytest.approx(found[0]["modality_gap"], abs=1e-3)


def test_the_same_command_continues_a_job_that_was_killed_or_stopped(
    store: Path, torchrun: tuple[Path, str], tmp_path: Path
) -> None:
    """After SIGKILL of one process, the other ends with an error; after SIGTERM, both stop after the same step."""
    out = tmp_path / "run"
    for killed, step in ((0, 30), (1, 70)):
        job = Job(command(store, out), tmp_path / f"killed {killed}")
        wait_for(out, step)
        os.kill(job.processes[killed].pid, signal.SIGKILL)
        results = job.end(seconds=30)
        assert results[killed][0] == -signal.SIGKILL
        status, output = results[1 - killed]
        assert status not in (0, None)
        assert f"process {killed} of 2" in output
        assert not (out / "space").exists()
    job = Job(command(store, out), tmp_path / "stopped")
    wait_for(out, 110)
    os.kill(job.processes[1].pid, signal.SIGTERM)
    results = job.end(seconds=30)
    assert [status for status, _ in results] == [143, 143]
    assert "run the same command again to continue" in results[0][1]
    job = Job(command(store, out), tmp_path / "continued")
    assert [status for status, _ in job.end(seconds=100)] == [0, 0]
    assert losses(out) == losses(torchrun[0])


def test_torchrun_of_another_command_raises(tmp_path: Path) -> None:
    """Commands other than `train` reject several processes, since all would write to the same folder."""
    for status, output in Job(["evaluate", "a", "b"], tmp_path / "job").end(seconds=60):
        assert status == 2
        assert "only `train` supports several processes" in output
