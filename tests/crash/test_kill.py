"""Test that saved files and training runs survive SIGKILL at random times and at every file operation."""

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


def killed(folder: Path, trials: int) -> dict[str, Any]:
    """Return the report of `kill_driver.py`, run in a new process because forking is safe only without threads."""
    paths = [str(HERE.parent.parent / "src"), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    finished = subprocess.run(
        [sys.executable, str(HERE / "kill_driver.py"), str(folder), str(trials)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize(
    ("trials", "steps", "inside_a_save"), [(20, 5, 5), pytest.param(50, 8, 15, marks=pytest.mark.slow)]
)
def test_saved_files_survive_kills(tmp_path: Path, trials: int, steps: int, inside_a_save: int) -> None:
    """Killed runs resume from a complete checkpoint to bit-equal weights; killed writes leave the old or the new file.

    Half of the training runs are killed at a random time, and half at a random file operation, so that many kills occur
    during a save. Writes of spaces, stores, checkpoints and single files are killed at every file operation in turn; a
    kill at an fsync also discards half of the file.
    """
    report = killed(tmp_path, trials)
    assert len(report["trials"]) == trials
    for trial in report["trials"]:
        assert trial["ended"] <= trial["found"] <= trial["begun"], trial
        assert trial["digest"] == report["digest"], trial
        assert trial["log_steps"] == list(range(1, report["steps"] + 1)), trial
        assert trial["left"] == [], trial
    # Enough kills must occur at different steps and during a save.
    assert len({trial["found"] for trial in report["trials"]}) >= steps
    assert sum(trial["begun"] > trial["ended"] for trial in report["trials"]) >= inside_a_save

    for kind, found in report["writers"].items():
        assert len(found) > 3, kind
        assert found[0] == 1, kind
        assert found[-1] == 2, kind
        assert found == sorted(found), (kind, found)
