"""kill -9 at random moments and at every operation on the disk: nothing is lost, the end is the same bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not Path("/proc/self/fd").exists() or not hasattr(os, "fork"), reason="needs fork and /proc"),
]


def driven(*arguments: str) -> dict[str, Any]:
    paths = [str(HERE.parent.parent / "src"), str(HERE), str(HERE.parent / "train"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    finished = subprocess.run(
        [sys.executable, str(HERE / "kill_driver.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return report


def test_training_killed_50_times_resumes_from_a_whole_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    """25 times at a random moment, 25 times at a random operation on the disk, so that many fall inside a save."""
    report = driven(str(tmp_path), "training", "50")
    assert len(report["trials"]) == 50
    for trial in report["trials"]:
        # The previous or the new step; what was finished is never lost.
        assert trial["ended"] <= trial["found"] <= trial["begun"], trial
        assert trial["digest"] == report["digest"], trial
        assert trial["log_steps"] == list(range(1, report["steps"] + 1)), trial
        assert trial["left"] == [], trial
    # The moments are spread over the run, and many fall into the writing of a checkpoint.
    assert len({trial["found"] for trial in report["trials"]}) >= 8
    assert sum(trial["begun"] > trial["ended"] for trial in report["trials"]) >= 15


def test_every_writer_killed_at_every_operation_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Spaces, stores, checkpoints and single files, replaced; a kill at an fsync takes half of the file with it."""
    for kind, found in driven(str(tmp_path), "writers").items():
        assert len(found) > 3, kind
        assert found[0] == 1, kind
        assert found[-1] == 2, kind
        assert found == sorted(found), (kind, found)
