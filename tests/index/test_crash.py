"""Test that commits survive kills and power cuts, wholly or not at all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("crash_rounds.py")


def run(*arguments: object) -> Any:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.crash
def test_killed_writers(tmp_path: Path) -> None:
    found = run(tmp_path, 50, 1)
    assert found["items"] > 50
    assert set(found["acknowledged"]) == {"add", "update", "delete", "batch", "compact", "calibrate"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Mount point and image of an ext4 file system."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("only root can mount an image, and mkfs.ext4 is needed")
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no image can be mounted: {done.stderr.strip()}")
    yield mount, image
    subprocess.run(["umount", str(mount)], check=False)


@pytest.mark.slow
@pytest.mark.crash
def test_power_cuts(disk: tuple[Path, Path]) -> None:
    """The file system is shut down without its journal, so that only synced data remain."""
    mount, image = disk
    assert run(mount, 12, 1, image)["rounds"] == 12
