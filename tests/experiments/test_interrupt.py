"""Test that an interrupted comparison ends all of its processes, and that the same command finishes it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from unialign.cli import main

DATA = ["digits", "--modalities", "fou", "kar", "--anchor", "kar", "--objectives", "unialign", "infonce"]
RUN = ["--dim", "16", "--head", "linear", "--epochs", "150", "--batch-size", "64", "--seeds", "0", "--workers", "2"]
RUN += ["--resamples", "200"]
COMMAND = ["compare", *DATA, *RUN, "--out", "runs/c"]


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "unialign", *COMMAND],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the run did not get there in time"
        time.sleep(0.05)


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


ORPHANS = """
import pathlib, os, sys, time
from unialign.experiments import _pool

def work(place):
    pathlib.Path(place, str(os.getpid())).touch()
    time.sleep(600)  # a long measurement, which ignores signals

if __name__ == "__main__":
    _pool.GRACE = 1.0
    list(_pool.run_jobs(work, [sys.argv[1]] * 2, 2))
"""


@pytest.mark.crash
def test_workers_of_a_killed_command_end_during_a_measurement(tmp_path):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    (tmp_path / "there").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "orphans.py"), str(tmp_path / "there")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    wait_until(lambda: len(list((tmp_path / "there").iterdir())) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: group_is_gone(process.pid), seconds=30)


def interrupt(folder, send, number, status):
    runs = folder / "runs/c/runs"
    before = {log: log.read_text().count("\n") for log in runs.glob("*/log.jsonl")}

    def grown():
        return [log for log in runs.glob("*/log.jsonl") if log.read_text().count("\n") > before.get(log, 0) + 3]

    process = start(folder)
    wait_until(lambda: len(grown()) == 2)
    send(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert "run the same command again to continue" in said
    wait_until(lambda: group_is_gone(process.pid), seconds=20)
    stopped = {run.name: sorted((run / "checkpoints").glob("step-*")) for run in runs.iterdir()}
    assert all(stopped.values()), stopped


@pytest.mark.crash
def test_interrupted_comparison_leaves_checkpoints_and_no_process(tmp_path, monkeypatch):
    """The command is interrupted by SIGTERM, repeated and interrupted by Ctrl-C, and repeated to the end."""
    interrupt(tmp_path, os.kill, signal.SIGTERM, 143)
    interrupt(tmp_path, os.killpg, signal.SIGINT, 130)
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--workers", "1"]) == 0
    results = json.loads((tmp_path / "runs/c/results.json").read_text())
    assert {run["objective"] for run in results["runs"]} == {"unialign", "infonce"}
    for run in (tmp_path / "runs/c/runs").iterdir():
        kinds = [json.loads(line)["kind"] for line in (run / "log.jsonl").read_text().splitlines()]
        assert kinds.count("resume") == 2
