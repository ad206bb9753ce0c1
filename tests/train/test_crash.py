"""kill -9 at random moments of training, then resume: the same final weights, bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.crash
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_ten_random_moments(tmp_path: Path) -> None:
    source = HERE.parent.parent / "src"
    paths = [str(source), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    finished = subprocess.run(
        [sys.executable, str(HERE / "crash_driver.py"), str(tmp_path), "10"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout.splitlines()[-1])
    assert len(report["trials"]) == 10
    for trial in report["trials"]:
        assert trial["digest"] == report["digest"], trial
        assert trial["log_steps"] == list(range(1, report["steps"] + 1)), trial
    # The moments are spread over the run, and some fall into the writing of a checkpoint.
    assert len({trial["newest"] for trial in report["trials"]}) >= 3, report
