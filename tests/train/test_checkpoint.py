"""Checkpoints: whole or not there, and never trusted when altered."""

import builtins
import errno
import os
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from train_cases import digest_of, run, stop_at, tiny_config, tiny_store

from unialign.errors import CheckpointError
from unialign.io import _checksummed
from unialign.io._files import digest
from unialign.train import _checkpoint
from unialign.train._checkpoint import Snapshot, load_checkpoint, newest_checkpoint, save_checkpoint

FILES = ("manifest.json", "state.json", "model.safetensors", "objective.safetensors", "optimizer.safetensors")


def snapshot(step: int) -> Snapshot:
    return Snapshot(
        step=step,
        space={"w": torch.full((3, 2), float(step))},
        objective={},
        optimizer={"space.w/step": torch.tensor(float(step)), "space.w/exp_avg": torch.ones(3, 2)},
        facts={"data": {"name": "x"}},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (3, 6):
        save_checkpoint(tmp_path / "checkpoints", snapshot(step), keep=2)
    return tmp_path / "checkpoints"


def test_round_trip(folder: Path) -> None:
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert sorted(p.name for p in newest.iterdir()) == sorted(FILES)
    loaded, original = load_checkpoint(newest), snapshot(6)
    assert (loaded.step, loaded.facts, loaded.objective) == (6, original.facts, {})
    for part in ("space", "optimizer"):
        found, expected = getattr(loaded, part), getattr(original, part)
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_last_ones_are_kept(folder: Path) -> None:
    for step in (9, 12, 100000000):
        save_checkpoint(folder, snapshot(step), keep=2)
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000012", "step-100000000"]
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "step-100000000"


def test_saving_a_step_again_leaves_it(folder: Path) -> None:
    before = (folder / "step-00000006" / "manifest.json").stat().st_mtime_ns
    save_checkpoint(folder, snapshot(6), keep=2)
    assert (folder / "step-00000006" / "manifest.json").stat().st_mtime_ns == before


def test_a_torn_checkpoint_is_ignored(folder: Path) -> None:
    torn = folder / "step-00000009"
    shutil.copytree(folder / "step-00000006", torn)
    (torn / "manifest.json").unlink()
    (folder / ".step-00000012.abc.partial").mkdir()
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "step-00000006"
    save_checkpoint(folder, snapshot(9), keep=2)
    assert load_checkpoint(torn).step == 9
    _checkpoint.discard_partial(folder)
    assert not (folder / ".step-00000012.abc.partial").exists()


def test_nothing_there(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_anywhere(folder: Path, file: str) -> None:
    path = folder / "step-00000006" / file
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 25)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=f"{file}.*remove step-00000006"):
            load_checkpoint(folder / "step-00000006")


@pytest.mark.parametrize("file", FILES)
def test_truncated(folder: Path, file: str) -> None:
    path = folder / "step-00000006" / file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(folder / "step-00000006")


@pytest.mark.parametrize("file", FILES[1:])
def test_a_file_of_another_checkpoint(folder: Path, file: str) -> None:
    if file == "objective.safetensors":
        return  # nothing in it, the same in both
    shutil.copy(folder / "step-00000003" / file, folder / "step-00000006" / file)
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(folder / "step-00000006")


def test_a_renamed_checkpoint(folder: Path) -> None:
    (folder / "step-00000006").rename(folder / "step-00000009")
    with pytest.raises(CheckpointError, match=r"state\.json is not the state of step-00000009"):
        load_checkpoint(folder / "step-00000009")


@pytest.mark.parametrize("file", FILES)
def test_a_link_out_of_the_folder(folder: Path, tmp_path: Path, file: str) -> None:
    path = folder / "step-00000006" / file
    path.rename(tmp_path / file)
    path.symlink_to(tmp_path / file)
    with pytest.raises(CheckpointError, match=f"{file} is a link"):
        load_checkpoint(folder / "step-00000006")


def test_another_schema(folder: Path) -> None:
    path = folder / "step-00000006" / "manifest.json"
    body = _checksummed.read_json(path) | {"schema": 7}
    path.unlink()
    _checksummed.write_json(path, body)
    with pytest.raises(CheckpointError, match=r"manifest\.json has schema 7; this version of unialign reads 1"):
        load_checkpoint(folder / "step-00000006")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (builtins.open, (str(self.path), "w"))


def test_a_pickle_with_a_forged_manifest(folder: Path, tmp_path: Path) -> None:
    step = folder / "step-00000006"
    data = pickle.dumps(Canary(tmp_path / "canary"))
    (step / "model.safetensors").write_bytes(data)
    body = _checksummed.read_json(step / "manifest.json")
    body["files"]["model.safetensors"] = digest(data)
    (step / "manifest.json").unlink()
    _checksummed.write_json(step / "manifest.json", body)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a pickle"):
        load_checkpoint(step)
    assert not (tmp_path / "canary").exists()


def test_a_pickle_in_the_place_of_the_weights(folder: Path, tmp_path: Path) -> None:
    step = folder / "step-00000006"
    (step / "model.safetensors").unlink()
    torch.save({"x": Canary(tmp_path / "canary")}, step / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt is a pickle"):
        load_checkpoint(step)
    assert not (tmp_path / "canary").exists()


# --- disks that refuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", range(7))
def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Five files, the folder of the new checkpoint, its parent."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    fsync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step-00000009: No space left on device; step-0000000\d is intact"):
        save_checkpoint(folder, snapshot(9), keep=2)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "00009" not in str(p)} == before
    assert not list(folder.glob(".*"))
    monkeypatch.undo()
    save_checkpoint(folder, snapshot(9), keep=2)
    assert load_checkpoint(folder / "step-00000009").step == 9


def test_a_full_disk_while_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> str:
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_checksummed, "write_durably", full)
    with pytest.raises(CheckpointError, match="step-00000006 is intact"):
        save_checkpoint(folder, snapshot(9), keep=2)
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000003", "step-00000006"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(folder: Path) -> None:
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(CheckpointError, match="step-00000006 is intact"):
            save_checkpoint(folder, snapshot(9), keep=2)
    finally:
        folder.chmod(stat.S_IRWXU)


def test_a_read_only_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(CheckpointError, match="Read-only file system; step-00000006 is intact"):
            save_checkpoint(folder, snapshot(9), keep=2)


def test_an_old_checkpoint_that_cannot_be_deleted_is_no_reason_to_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    save_checkpoint(folder, snapshot(9), keep=1)
    assert load_checkpoint(folder / "step-00000009").step == 9


def test_a_full_disk_in_training_then_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(save_steps=4)
    save, saved = save_checkpoint, []

    def full(*arguments: Any, **options: Any) -> Path:
        if len(saved) == 2:
            monkeypatch.setattr(_checksummed, "write_durably", refuse)
        saved.append(1)
        return save(*arguments, **options)

    def refuse(path: Path, data: bytes) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unialign.train._loop.save_checkpoint", full)
    with pytest.raises(CheckpointError, match=r"step-00000008 is intact.*resume='auto'"):
        run(tiny_store(), config, out=tmp_path / "run")
    monkeypatch.undo()
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert digest_of(result) == digest_of(run(tiny_store(), config))


def test_an_altered_checkpoint_stops_a_resumption(tmp_path: Path) -> None:
    """The older one is not silently used: whoever altered the newest should hear of it."""
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(save_steps=2), out=tmp_path / "run", on_step=stop_at(5))
    newest = tmp_path / "run" / "checkpoints" / "step-00000005" / "optimizer.safetensors"
    data = newest.read_bytes()
    newest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors was altered"):
        run(tiny_store(), tiny_config(save_steps=2), out=tmp_path / "run", resume="auto")
    # The way out that the message names.
    shutil.rmtree(newest.parent)
    result = run(tiny_store(), tiny_config(save_steps=2), out=tmp_path / "run", resume="auto")
    assert digest_of(result) == digest_of(run(tiny_store(), tiny_config()))
