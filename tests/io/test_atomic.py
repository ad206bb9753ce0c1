"""Test atomic folders, ordered commits of files, and locks of folders."""

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from unialign.errors import ConfigError
from unialign.io import _atomic, atomic_directory, commit_files, lock_folder, write_durably


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def only_mine(previous: Path) -> None:
    if not (previous / "mine").exists():
        raise PermissionError("not mine")


def fill(path: Path, text: str, **options: object) -> None:
    with atomic_directory(path, **options) as partial:  # type: ignore[arg-type]
        assert partial.parent == path.parent
        (partial / "sub").mkdir()
        write_durably(partial / "mine", text.encode())
        write_durably(partial / "sub" / "file", b"x")


def test_a_folder_appears_with_its_parents(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "b", "1")
    assert names(tmp_path) == ["a", "a/b", "a/b/mine", "a/b/sub", "a/b/sub/file"]
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty", "1")
    assert (tmp_path / "empty" / "mine").read_text() == "1"


def test_a_folder_with_files_stays_unless_it_may_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis").write_text("precious")
    fill(tmp_path / "a", "1")
    before = names(tmp_path)
    for can_exchange in (True, False):
        if not can_exchange:
            monkeypatch.setattr(_atomic, "exchange", lambda *_: False)
        for path, options in (("a", {}), ("foreign", {}), ("foreign", {"check_replaced": only_mine})):
            with pytest.raises(OSError, match=r"not empty|not mine"):
                fill(tmp_path / path, "2", **options)
            assert names(tmp_path) == before
        assert (tmp_path / "a" / "mine").read_text() != f"{can_exchange}"
        fill(tmp_path / "a", f"{can_exchange}", check_replaced=only_mine)
        assert (tmp_path / "a" / "mine").read_text() == f"{can_exchange}"
        assert names(tmp_path) == before


def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "a", "1")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")):
        with pytest.raises(type(error)):
            fail(tmp_path / "a", error)
        assert names(tmp_path) == ["a", "a/mine", "a/sub", "a/sub/file"]
    assert (tmp_path / "a" / "mine").read_text() == "1"


def fail(path: Path, error: BaseException) -> None:
    with atomic_directory(path, check_replaced=only_mine) as partial:
        (partial / "half").write_text("half")
        raise error


def test_files_and_folders_reach_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    real, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda handle: (events.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))
    )
    monkeypatch.setattr(Path, "rename", lambda self, target: (events.append("rename"), rename(self, target))[1])
    fill(tmp_path / "a", "1")
    synced = events[: events.index("rename")]
    for name in ("mine", "sub/file", "sub"):
        assert any(path.endswith(f".partial/{name}") for path in synced), name
    assert synced[-1].endswith(".partial")
    assert events[events.index("rename") + 1 :] == [str(tmp_path)]


def test_files_are_committed_in_order_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = tmp_path / ".staging"
    for name in ("images/1", "images/2", "weights", "config"):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_text("new")
    (tmp_path / "config").write_text("old")
    (tmp_path / "notes").write_text("mine")
    moved: list[str] = []
    replace = os.replace

    def crash_at(count: int) -> None:
        def watched(source: Path, target: Path) -> None:
            if len(moved) == count:
                raise OSError(5, "Input/output error")
            moved.append(Path(target).name)
            replace(source, target)

        monkeypatch.setattr(os, "replace", watched)

    crash_at(3)
    with pytest.raises(OSError, match="Input/output"):
        commit_files(staging, tmp_path, last=("weights", "config", "missing"))
    assert moved == ["1", "2", "weights"]
    assert (tmp_path / "config").read_text() == "old"
    crash_at(100)
    commit_files(staging, tmp_path, last=("weights", "config", "missing"))
    assert moved == ["1", "2", "weights", "config"]
    assert (tmp_path / "images/1").read_text() == (tmp_path / "config").read_text() == "new"
    assert (tmp_path / "notes").read_text() == "mine"


def test_each_folder_of_a_commit_is_synced_before_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = tmp_path / ".staging"
    for name in ("images/1", "images/2", "weights", "config"):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_text("new")
    events: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(Path(b).name), replace(a, b))[1])
    monkeypatch.setattr(
        os, "fsync", lambda h: (events.append("sync " + Path(os.readlink(f"/proc/self/fd/{h}")).name), fsync(h))[1]
    )
    commit_files(staging, tmp_path, last=("weights", "config"))
    top = f"sync {tmp_path.name}"
    assert events == ["1", "2", "sync images", top, "weights", top, "config", top]


def test_a_lock_excludes_other_writers_until_its_process_ends(tmp_path: Path) -> None:
    def in_another_process(then: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import os, pathlib, sys\nfrom unialign.io import lock_folder\n"
            f"with lock_folder(pathlib.Path(sys.argv[1]), doing='x'): {then}"
        )
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)

    with lock_folder(tmp_path, doing="training"):
        with pytest.raises(ConfigError, match=r"another run is training in .*, and the two runs"), locked(tmp_path):
            pass
        assert "another run is x" in in_another_process("pass").stderr
    assert in_another_process("os._exit(7)").returncode == 7
    with locked(tmp_path):
        pass


def locked(path: Path) -> AbstractContextManager[None]:
    return lock_folder(path, doing="training")
