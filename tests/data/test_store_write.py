"""Test that a store is written completely or not at all, and that a failed write leaves an earlier store intact."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.io import _atomic

COLUMNS = {"x": np.ones((3, 2), dtype=np.float32), "y": np.ones((3, 2), dtype=np.float32)}
OTHER = {"x": np.full((3, 2), 2, dtype=np.float32)}


def test_parents_are_created_with_default_permissions(tmp_path: Path) -> None:
    store = EmbeddingStore.write(tmp_path / "a" / "b", COLUMNS)
    assert store.path == tmp_path / "a" / "b"
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "a" / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert EmbeddingStore.write("here", COLUMNS).name == "here"
    store = EmbeddingStore.open("here")
    monkeypatch.chdir("/")
    assert store.array("x").shape == (3, 2)


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    EmbeddingStore.write(tmp_path, COLUMNS).verify()


def test_existing_store_is_kept(tmp_path: Path) -> None:
    before = EmbeddingStore.write(tmp_path / "s", COLUMNS).fingerprint
    with pytest.raises(DataError, match=r"already exists.*overwrite='replace'"):
        EmbeddingStore.write(tmp_path / "s", OTHER)
    assert EmbeddingStore.open(tmp_path / "s").fingerprint == before


def test_replace(tmp_path: Path) -> None:
    EmbeddingStore.write(tmp_path / "s", COLUMNS)
    store = EmbeddingStore.write(tmp_path / "s", OTHER, overwrite="replace")
    assert store.columns == ("x",)
    store.verify()
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]


def test_a_store_may_replace_the_folder_it_reads(tmp_path: Path) -> None:
    old = EmbeddingStore.write(tmp_path / "s", COLUMNS)
    new = EmbeddingStore.write(tmp_path / "s", {"z": old.array("x")}, overwrite="replace")
    np.testing.assert_array_equal(new.array("z"), COLUMNS["x"])


@pytest.mark.parametrize("kind", ["folder of the user", "file", "link"])
def test_replace_keeps_folders_that_are_no_store(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "s"
    if kind == "file":
        target.write_text("precious")
    elif kind == "link":
        EmbeddingStore.write(tmp_path / "elsewhere", COLUMNS)
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
        (target / "thesis.tex").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="is not a store, so it is not replaced"):
        EmbeddingStore.write(target, OTHER, overwrite="replace")
    assert sorted(tmp_path.rglob("*")) == before


def test_overwrite_must_be_never_or_replace(tmp_path: Path) -> None:
    options: dict[str, Any] = {"overwrite": True}
    with pytest.raises(ConfigError, match="overwrite is True, expected 'never' or 'replace'"):
        EmbeddingStore.write(tmp_path / "s", COLUMNS, **options)


def test_an_existing_path_raises_before_the_data_is_read(tmp_path: Path) -> None:
    EmbeddingStore.write(tmp_path / "s", COLUMNS)
    with pytest.raises(DataError, match="already exists"):
        EmbeddingStore.write(tmp_path / "s", {"x": np.ones(3)})


def _fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    real, calls = os.fsync, iter(range(100))

    def fsync(handle: int) -> None:
        if next(calls) == call:
            raise error
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("call", range(5))
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("before", ["nothing", "a store"])
def test_failure_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException, before: str
) -> None:
    if before == "a store":
        EmbeddingStore.write(tmp_path / "s", OTHER)
    _fail_at(monkeypatch, call, error)
    expected = DataError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="No space left" if expected is DataError else None):
        EmbeddingStore.write(tmp_path / "s", COLUMNS, overwrite="replace")
    assert [entry.name for entry in tmp_path.iterdir()] == (["s"] if before == "a store" else [])
    if before == "a store":
        store = EmbeddingStore.open(tmp_path / "s")
        store.verify()
        np.testing.assert_array_equal(store.array("x"), OTHER["x"])


def test_failure_of_the_last_rename_brings_the_old_store_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_atomic, "exchange", lambda *_: False)
    before = EmbeddingStore.write(tmp_path / "s", OTHER).fingerprint
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DataError, match="Input/output error"):
        EmbeddingStore.write(tmp_path / "s", COLUMNS, overwrite="replace")
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]
    assert EmbeddingStore.open(tmp_path / "s").fingerprint == before


def test_a_store_killed_between_two_renames_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an atomic exchange of folders, a kill between the two renames leaves no store at the path."""
    EmbeddingStore.write(tmp_path / "s", OTHER)
    (tmp_path / "s").rename(tmp_path / ".s.0123.old")
    with pytest.raises(DataError, match=r"interrupted, so rename \.s\.0123\.old back"):
        EmbeddingStore.open(tmp_path / "s")


@pytest.mark.parametrize("how", ["one step", "two renames"])
def test_replace_keeps_a_folder_that_appears_during_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "two renames":
        monkeypatch.setattr(_atomic, "exchange", lambda *_: False)
    real = os.fsync

    def fsync(handle: int) -> None:
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / "thesis.tex").write_text("precious")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match="is not a store, so it is not replaced"):
        EmbeddingStore.write(tmp_path / "s", COLUMNS, overwrite="replace")
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "thesis.tex"]


def test_two_writers_cannot_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process writes a store after the path was checked, that store is kept and the call raises an error."""
    real = os.fsync
    raced: list[bool] = []

    def fsync(handle: int) -> None:
        if not raced:
            raced.append(True)
            EmbeddingStore.write(tmp_path / "s", OTHER)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match="cannot write the store"):
        EmbeddingStore.write(tmp_path / "s", COLUMNS)
    store = EmbeddingStore.open(tmp_path / "s")
    store.verify()
    assert store.columns == ("x",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("call", [0, 2, 4, 5])
def test_kill_minus_nine(tmp_path: Path, call: int) -> None:
    """After SIGKILL at any fsync, the path contains either the complete old store or the complete new store."""
    old = EmbeddingStore.write(tmp_path / "s", OTHER).fingerprint
    new = EmbeddingStore.from_arrays(COLUMNS).fingerprint
    script = f"""
import os, signal
import numpy as np
from unialign.data import EmbeddingStore
real, calls = os.fsync, iter(range(100))
def fsync(handle):
    if next(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
ones = np.ones((3, 2), dtype=np.float32)
EmbeddingStore.write({str(tmp_path / "s")!r}, {{"x": ones, "y": ones}}, overwrite="replace")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == -signal.SIGKILL
    store = EmbeddingStore.open(tmp_path / "s")
    store.verify()
    assert store.fingerprint == (new if call == 5 else old)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"):
        EmbeddingStore.write(tmp_path / "s", COLUMNS)


def test_a_file_at_the_path_of_the_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the store"):
        EmbeddingStore.write(tmp_path / "file" / "s", COLUMNS)


def test_invalid_data_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ShapeError):
        EmbeddingStore.write(tmp_path / "s", {"x": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


def test_same_data_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        EmbeddingStore.write(tmp_path / place, COLUMNS, name="s", ids=[1, 1, 2], assets={"z.bin": b"1"})
    files = [file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file()]
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
