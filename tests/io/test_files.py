"""Test the atomic replacement of files, and JSON files with checksums."""

import errno
import os
import stat
from pathlib import Path

import pytest

from unialign.errors import CheckpointError, DataError
from unialign.io import _files
from unialign.io._files import digest, open_regular, replace_file, write_durably, write_yaml
from unialign.io._json import add_checksum, finite, is_unchanged


def test_replacing_creates_the_folder_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.txt"
    for text in ("old", "new é"):
        replace_file(target, text)
        assert target.read_text("utf-8") == text
    assert [entry.name for entry in target.parent.iterdir()] == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    target = tmp_path / "file"
    replace_file(target, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DataError, match=r"file: No space left on device; the previous file is unchanged$"):
        replace_file(target, "new")
    with pytest.raises(CheckpointError, match=r"is unchanged\. Make room$"):
        replace_file(target, "new", error=CheckpointError, advice="Make room")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_syncing_the_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(_files, "sync_folder", fail)
    replace_file(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_yaml_keeps_the_order(tmp_path: Path) -> None:
    write_yaml(tmp_path / "c.yaml", {"z": 1, "a": "é"})
    assert (tmp_path / "c.yaml").read_text("utf-8") == "z: 1\na: é\n"


def test_writing_durably_does_not_replace_a_file(tmp_path: Path) -> None:
    assert write_durably(tmp_path / "file", [b"a", b"bc"]) == digest(b"abc")
    with pytest.raises(FileExistsError):
        write_durably(tmp_path / "file", b"")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / "pipe")


@pytest.mark.parametrize("sort_keys", [True, False])
def test_checksums_of_objects(sort_keys: bool) -> None:
    body = {"b": 1, "a": [2]}
    written = add_checksum(body, sort_keys=sort_keys)
    assert is_unchanged(written, sort_keys=sort_keys)
    assert is_unchanged(dict(reversed(written.items())), sort_keys=sort_keys) == sort_keys
    for altered in (body, {**written, "b": 2}, {**written, "c": 1}, {**written, "b": float("nan")}):
        assert not is_unchanged(altered, sort_keys=sort_keys)


def test_non_finite_numbers_become_null() -> None:
    assert finite({1: (1.5, float("nan")), "x": [float("inf"), None, "s", True]}) == {
        "1": [1.5, None],
        "x": [None, None, "s", True],
    }
