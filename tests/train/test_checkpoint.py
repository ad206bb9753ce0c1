"""Test that checkpoints are written completely or not at all, and that altered checkpoints are not loaded."""

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

from train_cases import digest_of, finished, run, stop_at, tiny_config, tiny_store
from unialign.errors import CheckpointError
from unialign.io import _checksummed, digest, read_json, write_json
from unialign.train import _checkpoint
from unialign.train._checkpoint import Snapshot, load_checkpoint, newest_checkpoint, save_checkpoint

FILES = ("manifest.json", "state.json", "space.safetensors", "objective.safetensors", "optimizer.safetensors")


def snapshot(step: int) -> Snapshot:
    tensors = {
        "space": {"w": torch.full((3, 2), float(step))},
        "objective": {},
        "optimizer": {"space.w/step": torch.tensor(float(step)), "space.w/exp_avg": torch.ones(3, 2)},
    }
    return Snapshot(step, tensors, {"data": {"name": "x"}})


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
    assert (loaded.step, loaded.facts) == (6, original.facts)
    assert loaded.tensors.keys() == original.tensors.keys()
    for group, expected in original.tensors.items():
        assert set(loaded.tensors[group]) == set(expected)
        assert all(torch.equal(loaded.tensors[group][name], expected[name]) for name in expected)


def test_the_latest_are_kept(folder: Path) -> None:
    for step in (9, 12, 100000000):
        save_checkpoint(folder, snapshot(step), keep=2)
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000012", "step-100000000"]
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "step-100000000"


def test_saving_a_step_again_does_not_rewrite_it(folder: Path) -> None:
    before = (folder / "step-00000006" / "manifest.json").stat().st_mtime_ns
    save_checkpoint(folder, snapshot(6), keep=2)
    assert (folder / "step-00000006" / "manifest.json").stat().st_mtime_ns == before


def test_an_incomplete_checkpoint_is_ignored(folder: Path, tmp_path: Path) -> None:
    incomplete = folder / "step-00000009"
    shutil.copytree(folder / "step-00000006", incomplete)
    (incomplete / "manifest.json").unlink()
    (folder / ".step-00000012.0123456789ab.partial").mkdir()
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "step-00000006"
    save_checkpoint(folder, snapshot(9), keep=2)
    assert load_checkpoint(incomplete).step == 9
    (incomplete / "manifest.json").unlink()
    _checkpoint.discard_incomplete(folder)
    assert [entry.name for entry in sorted(folder.iterdir())] == ["step-00000006"]
    assert not (folder / ".step-00000012.0123456789ab.partial").exists()
    assert newest_checkpoint(tmp_path / "absent") is None


def test_an_altered_file_is_named(folder: Path, tmp_path: Path) -> None:
    step = folder / "step-00000006"
    for file in FILES:
        path = step / file
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 25)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
            with pytest.raises(CheckpointError, match=f"{file}.*remove step-00000006"):
                load_checkpoint(step)
        path.write_bytes(data[:-3])
        with pytest.raises(CheckpointError, match=file):
            load_checkpoint(step)
        path.unlink()
        (tmp_path / file).write_bytes(data)
        path.symlink_to(tmp_path / file)
        with pytest.raises(CheckpointError, match=f"{file} is a link"):
            load_checkpoint(step)
        path.unlink()
        path.write_bytes(data)
    assert load_checkpoint(step).step == 6


def test_a_file_of_another_checkpoint_is_named(folder: Path) -> None:
    step = folder / "step-00000006"
    for file in ("state.json", "space.safetensors", "optimizer.safetensors"):
        data = (step / file).read_bytes()
        shutil.copy(folder / "step-00000003" / file, step / file)
        with pytest.raises(CheckpointError, match=file):
            load_checkpoint(step)
        (step / file).write_bytes(data)
    step.rename(folder / "step-00000009")
    with pytest.raises(CheckpointError, match=r"state\.json is not the state of step-00000009"):
        load_checkpoint(folder / "step-00000009")


def forge_manifest(step: Path, **changes: Any) -> None:
    body = read_json(step / "manifest.json") | changes
    (step / "manifest.json").unlink()
    write_json(step / "manifest.json", body)


def test_another_schema(folder: Path) -> None:
    forge_manifest(folder / "step-00000006", schema=7)
    with pytest.raises(CheckpointError, match=r"manifest\.json has schema 7, but this version of unialign reads"):
        load_checkpoint(folder / "step-00000006")


def test_a_manifest_that_leads_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((folder / "step-00000006" / "space.safetensors").read_bytes())
    for file in ("../../x.safetensors", str(tmp_path / "x.safetensors"), "space.bin"):
        files = read_json(folder / "step-00000006" / "manifest.json")["files"]
        forge_manifest(folder / "step-00000006", files={"state.json": files["state.json"], file: "0" * 64})
        with pytest.raises(CheckpointError, match=r"expected `<group>\.safetensors`"):
            load_checkpoint(folder / "step-00000006")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (builtins.open, (str(self.path), "w"))


def test_pickles_are_not_read(folder: Path, tmp_path: Path) -> None:
    step = folder / "step-00000006"
    data = pickle.dumps(Canary(tmp_path / "canary"))
    (step / "space.safetensors").write_bytes(data)
    files = read_json(step / "manifest.json")["files"]
    forge_manifest(step, files=files | {"space.safetensors": digest(data)})
    with pytest.raises(CheckpointError, match=r"space\.safetensors is a pickle"):
        load_checkpoint(step)
    (step / "space.safetensors").unlink()
    torch.save({"x": Canary(tmp_path / "canary")}, step / "space.pt")
    with pytest.raises(CheckpointError, match=r"space\.pt is a pickle"):
        load_checkpoint(step)
    assert not (tmp_path / "canary").exists()


# --- file systems that fail -----------------------------------------------------------------------------------------


def test_a_full_disk(folder: Path) -> None:
    """The disk is full at one of seven fsync calls: for five files, the folder of the checkpoint, and its parent."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    fsync = os.fsync
    for fatal in range(7):
        calls: list[int] = []

        def full(handle: int, calls: list[int] = calls, fatal: int = fatal) -> None:
            calls.append(handle)
            if len(calls) > fatal:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", full)
            message = r"step-00000009: No space left on device; step-0000000\d is intact"
            with pytest.raises(CheckpointError, match=message):
                save_checkpoint(folder, snapshot(9), keep=2)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "00009" not in str(p)} == before
        assert not list(folder.glob(".*"))
        shutil.rmtree(folder / "step-00000009", ignore_errors=True)
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
    def fail(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", fail)
        with pytest.raises(CheckpointError, match="Read-only file system; step-00000006 is intact"):
            save_checkpoint(folder, snapshot(9), keep=2)


def test_an_old_checkpoint_that_cannot_be_deleted_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", fail)
    save_checkpoint(folder, snapshot(9), keep=1)
    assert load_checkpoint(folder / "step-00000009").step == 9


def test_training_continues_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(save_steps=4)
    save, saved = save_checkpoint, []

    def full(*arguments: Any, **options: Any) -> Path:
        if len(saved) == 2:
            monkeypatch.setattr(_checksummed, "write_durably", fail)
        saved.append(1)
        return save(*arguments, **options)

    def fail(path: Path, data: bytes) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unialign.train._trainer.save_checkpoint", full)
    with pytest.raises(CheckpointError, match=r"step-00000008 is intact.*resume='auto'"):
        run(tiny_store(), config, out=tmp_path / "run")
    monkeypatch.undo()
    assert digest_of(run(tiny_store(), config, out=tmp_path / "run", resume="auto")) == finished().digest


def test_an_altered_checkpoint_stops_a_resumption(tmp_path: Path) -> None:
    """The call must raise an error, and must not continue from an older checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(save_steps=2), out=tmp_path / "run", on_step=stop_at(5))
    newest = tmp_path / "run" / "checkpoints" / "step-00000005" / "optimizer.safetensors"
    data = newest.read_bytes()
    newest.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors was altered"):
        run(tiny_store(), tiny_config(save_steps=2), out=tmp_path / "run", resume="auto")
    shutil.rmtree(newest.parent)
    result = run(tiny_store(), tiny_config(save_steps=2), out=tmp_path / "run", resume="auto")
    assert digest_of(result) == finished().digest
