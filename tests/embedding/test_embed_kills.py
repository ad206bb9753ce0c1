"""Test that runs of `embed` that are killed at random, and during each step of the assembly, give equal bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not Path("/proc/self/fd").exists() or not hasattr(os, "fork"), reason="needs fork and /proc"),
]


@pytest.mark.parametrize(("kills", "stride"), [(3, 9), pytest.param(10, 1, marks=pytest.mark.slow)])
def test_killed_runs_give_the_bytes_of_an_uninterrupted_run(tmp_path: Path, kills: int, stride: int) -> None:
    paths = [str(TESTS.parent / "src"), str(TESTS), str(TESTS / "crash"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    words = [sys.executable, str(HERE / "embed_kill_driver.py"), str(tmp_path), str(kills), str(stride)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    whole = report["whole"]
    assert whole["files"] == ["store"]

    *trials, last = report["random"]
    assert all(trial["killed"] for trial in trials)
    parts = [trial["parts"] for trial in trials]
    assert parts == sorted(parts)
    assert len(set(parts)) > kills // 2
    assert last == whole

    trials = report["assembly"]
    assert len(trials) >= 30 // stride
    # The kills before the rename leave no store, the kills after it the complete one.
    had_store = [trial.pop("had_store") for trial in trials]
    assert had_store == sorted(had_store)
    assert not had_store[0]
    assert [trial.pop("killed") for trial in trials] == [True] * (len(trials) - 1) + [False]
    for operation, trial in enumerate(trials):
        assert trial == whole, operation
