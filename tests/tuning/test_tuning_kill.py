"""Test that a killed search ends all of its processes, and that the same command ends with the same trials."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tuning_cases import lines, small_store
from unialign.cli import main

SEARCH = ["--trials", "9", "--objectives", "infonce", "gcca", "--metric", "recall@1", "label_map", "--lag", "3"]
FIXED = ["--dim", "6", "--batch-size", "32", "--init-regularization", "0.1", "--init-spectrum-power", "0"]
COMMAND = ["tune", "store", *SEARCH, *FIXED, "--epochs", "15", "--seeds", "2", "--top", "2", "--resamples", "400"]


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the search did not get there in time"
        time.sleep(0.02)


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.crash
def test_a_search_that_is_killed_and_continued_has_the_trials_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    trials = tmp_path / "killed" / "trials.jsonl"
    for least in (2, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "unialign", *COMMAND, "--workers", "2", "--out", "killed"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: trials.exists() and trials.read_bytes().count(b"\n") >= least)  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: is_gone(process.pid), seconds=60)  # noqa: B023
    assert not (tmp_path / "killed" / "results.json").exists()
    assert main([*COMMAND, "--workers", "2", "--out", "killed", "--quiet"]) == 0
    assert main([*COMMAND, "--workers", "1", "--out", "whole", "--quiet"]) == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    killed, whole = (json.loads((tmp_path / name / "results.json").read_text("utf-8")) for name in ("killed", "whole"))
    for key in ("chosen", "front", "candidates"):
        assert killed[key] == whole[key], key
    assert killed["test"]["summary"] == whole["test"]["summary"]
