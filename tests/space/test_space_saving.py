"""Test that saved spaces load unchanged or raise an error that names the file, and that no code is executed."""

import builtins
import errno
import hashlib
import json
import os
import pickle
import shutil
import sys
import types
import zipfile
from pathlib import Path
from unittest.mock import ANY

import pytest
import safetensors.torch
import torch

from unialign.errors import CheckpointError, ConfigError, MissingDependencyError
from unialign.io import _pretrained as _saving, read_json, write_json
from unialign.space import Space
from unialign.space._inside import SUFFIXES


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (builtins.open, (str(self.path), "w"))


@pytest.fixture
def space() -> Space:
    torch.manual_seed(0)
    space = Space(
        {"type": 6, "rna.seq": 4}, dim=5, hidden=7, dropout=0.25, metadata={"training": {"objective": "gram"}}
    )
    space.features[0].mean.fill_(3.0)
    return space


@pytest.fixture
def saved(space: Space, tmp_path: Path) -> Path:
    space.save_pretrained(tmp_path / "space")
    return tmp_path / "space"


def weights(space: Space) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in space.state_dict().items()}


def forge_config(saved: Path, change: dict) -> None:
    body = read_json(saved / "config.json") | change
    (saved / "config.json").unlink()
    write_json(saved / "config.json", body)


def forge_weights(saved: Path, data: bytes) -> None:
    (saved / "model.safetensors").write_bytes(data)
    forge_config(saved, {"weights": hashlib.sha256(data).hexdigest()})


def test_round_trip(space: Space, saved: Path) -> None:
    before = torch.get_rng_state()
    loaded = Space.from_pretrained(saved)
    assert torch.equal(before, torch.get_rng_state())
    assert weights(loaded) == weights(space)
    assert loaded.get_config() == space.get_config()
    assert loaded.modalities == ("type", "rna.seq")
    assert loaded.metadata == space.metadata
    assert not loaded.training
    x = {"type": torch.randn(3, 6)}
    assert torch.equal(loaded.encode(x)["type"], space.encode(x)["type"])
    loaded.train()(x)["type"].sum().backward()


def test_files_of_the_folder(saved: Path) -> None:
    assert sorted(entry.name for entry in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert "| rna.seq | 4 |" in (saved / "README.md").read_text()


def test_a_converted_space_keeps_its_dtype(space: Space, tmp_path: Path) -> None:
    space.double().save_pretrained(tmp_path / "double")
    assert Space.from_pretrained(tmp_path / "double").encode({"type": torch.ones(1, 6)})["type"].dtype == torch.float64


def test_saving_again_replaces_and_keeps_other_files(space: Space, saved: Path) -> None:
    (saved / "README.md").write_text("mine")
    (saved / "notes.txt").write_text("mine too")
    with torch.no_grad():
        space.heads[0][1].weight.zero_()
    space.save_pretrained(saved)
    assert weights(Space.from_pretrained(saved)) == weights(space)
    assert (saved / "README.md").read_text() == "mine"
    assert (saved / "notes.txt").exists()


@pytest.mark.parametrize("crash_at", range(3))
def test_a_crash_between_the_renames_leaves_one_whole_space(
    space: Space, saved: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    old = weights(space)
    new = Space({"type": 6}, dim=3)
    calls = []
    replace = os.replace

    class Crash(BaseException):
        pass

    def crashing(source: Path, target: Path) -> None:
        if len(calls) == crash_at:
            raise Crash
        calls.append(target)
        replace(source, target)

    (saved / "README.md").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crashing)
        # Disable the cleanup, since a killed process does not run it.
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Crash):
            new.save_pretrained(saved)
    assert weights(Space.from_pretrained(saved)) == (old if crash_at == 0 else weights(new))
    space.save_pretrained(saved)
    assert weights(Space.from_pretrained(saved)) == old
    assert not (saved / ".saving").exists()


def test_each_rename_reaches_the_disk_before_the_next(
    space: Space, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure, the folder must not combine the new configuration with the old weights."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), saved.stat()):
            events.append("sync")
        fsync(handle)

    def recorded_replace(source: Path, target: Path) -> None:
        events.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    space.save_pretrained(saved)
    assert events == ["model.safetensors", "sync", "config.json", "sync"]


def test_an_error_between_the_renames_keeps_the_configuration_of_the_new_weights(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, replace = Space({"type": 6}, dim=3), os.replace

    def fail_at_config(source: Path, target: Path) -> None:
        if target.name == "config.json":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at_config)
        with pytest.raises(CheckpointError, match="Input/output error"):
            new.save_pretrained(saved)
    assert weights(Space.from_pretrained(saved)) == weights(new)


@pytest.mark.parametrize("call", range(3))
def test_a_full_disk_leaves_the_old_space(
    space: Space, saved: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    old, calls = weights(space), []
    fsync = os.fsync

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            Space({"type": 6}, dim=3).save_pretrained(saved)
    assert weights(Space.from_pretrained(saved)) == old
    assert not (saved / ".saving").exists()


def test_metadata_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="metadata of a space must be a JSON object"):
        Space({"type": 2}, metadata={"bad": object()}).save_pretrained(tmp_path / "space")


# --- damaged and hostile files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_flipped_byte_anywhere(saved: Path, file: str) -> None:
    data = (saved / file).read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):
        (saved / file).write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=file):
            Space.from_pretrained(saved)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_truncated(saved: Path, file: str) -> None:
    data = (saved / file).read_bytes()
    for keep in (0, 5, len(data) // 2, len(data) - 2):
        (saved / file).write_bytes(data[:keep])
        with pytest.raises(CheckpointError, match=file):
            Space.from_pretrained(saved)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_missing_file(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(CheckpointError, match=f"no {file}"):
        Space.from_pretrained(saved)


def test_a_pickle_in_place_of_weights(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({"x": Canary(tmp_path / "canary")}, saved / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        Space.from_pretrained(saved)
    assert not (tmp_path / "canary").exists()


def test_a_pickle_named_safetensors(saved: Path, tmp_path: Path) -> None:
    for protocol in (0, 2, 4, 5):
        forge_weights(saved, pickle.dumps(Canary(tmp_path / "canary"), protocol))
        with pytest.raises(CheckpointError, match=r"model\.safetensors is (a pickle|not a safetensors)"):
            Space.from_pretrained(saved)
        assert not (tmp_path / "canary").exists()


def test_a_torch_file_named_safetensors(saved: Path, tmp_path: Path) -> None:
    torch.save({"x": Canary(tmp_path / "canary")}, tmp_path / "weights.pt")
    assert zipfile.is_zipfile(tmp_path / "weights.pt")
    forge_weights(saved, (tmp_path / "weights.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a zip archive"):
        Space.from_pretrained(saved)
    assert not (tmp_path / "canary").exists()


def test_hostile_weights(saved: Path) -> None:
    """The cases are a header of 10 GB, an overflowing header length, invalid JSON, and a file without tensors."""
    for length, rest in ((10 * 2**30, b'{"a":1}'), (2**64 - 1, b"{"), (4, b"{]}x"), (2, b"{}")):
        forge_weights(saved, length.to_bytes(8, "little") + rest)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            Space.from_pretrained(saved)


def test_tensors_that_claim_more_than_the_file_has(saved: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**64]}}).encode()
    forge_weights(saved, len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file"):
        Space.from_pretrained(saved)


def test_hostile_configuration(saved: Path) -> None:
    config = (saved / "config.json").read_bytes()
    changes: list[dict] = [
        {"schema": 2},
        {"schema": "1"},
        {"library": "other"},
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"weights": None},
        {"metadata": []},
        {"space": []},
        {"space": {"dims": []}},
        {"space": {"dims": {"type": 6}, "dim": 10**12}},
        {"space": {"dims": {"type": 6}, "dim": 2**20, "hidden": 2**20}},
        {"space": {"dims": {"type": 6}, "class": "os.system"}},
        {"space": {"dims": {"type": 6}, "metadata": {}}},
        {"space": {"dims": {"type": -1}}},
        {"space": {"dims": {"type": 6}, "dropout": "x"}},
    ]
    for change in changes:
        forge_config(saved, change)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            Space.from_pretrained(saved)
        (saved / "config.json").write_bytes(config)


def test_weights_of_another_space(saved: Path, tmp_path: Path) -> None:
    Space({"type": 6}, dim=2).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was altered"):
        Space.from_pretrained(saved)


def test_integer_weights(space: Space, saved: Path) -> None:
    tensors = {name: tensor.to(torch.int32) for name, tensor in space.state_dict().items()}
    forge_weights(saved, safetensors.torch.save(tensors))
    with pytest.raises(CheckpointError, match="not floating"):
        Space.from_pretrained(saved)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    os.mkfifo(saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        Space.from_pretrained(saved)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder with a saved space"):
        Space.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is not a folder with a saved space"):
        Space.from_pretrained(str(tmp_path / "file"))


# --- the hub --------------------------------------------------------------------------------------------------------


def test_the_hub_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[hub\]"):
        Space.from_pretrained("someone/space")


def test_a_space_from_the_hub(space: Space, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot_download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(saved)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert weights(Space.from_pretrained("someone/space", revision="v1")) == weights(space)
    assert asked == {
        "name": "someone/space",
        "revision": "v1",
        "allow_patterns": [_saving.CONFIG, _saving.WEIGHTS, *(f"encoders/*/*{suffix}" for suffix in SUFFIXES)],
    }


def test_push_and_load(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a fake Hub with local folders as repositories."""
    calls = []

    def create_repo(repo_id: str, **options: object) -> None:
        calls.append(options)
        (tmp_path / repo_id).mkdir(parents=True, exist_ok=bool(options["exist_ok"]))

    def upload_folder(repo_id: str, folder_path: Path, **options: object) -> str:
        calls.append(options)
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(name: str, **options: object) -> str:
        return str(tmp_path / name)

    hub = types.SimpleNamespace(
        create_repo=create_repo, upload_folder=upload_folder, snapshot_download=snapshot_download
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert space.push_to_hub("someone/space", private=True, token="t") == "https://hub/someone/space/commit/1"
    assert calls == [
        {"private": True, "token": "t", "exist_ok": True},
        {"allow_patterns": ANY, "token": "t", "revision": None, "commit_message": "Upload a unialign space"},
    ]
    files = sorted(path.name for path in (tmp_path / "someone/space").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    assert weights(Space.from_pretrained("someone/space")) == weights(space)
    assert space.push_to_hub("someone/space")


def test_push_errors(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="expected 'owner/name'"):
        space.push_to_hub("space")

    def create_repo(repo_id: str, **options: object) -> None:
        raise PermissionError("401: you are not logged in")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(create_repo=create_repo))
    with pytest.raises(CheckpointError, match=r"upload to 'someone/space' .* failed .*not logged in"):
        space.push_to_hub("someone/space")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[hub\]"):
        space.push_to_hub("someone/space")


def test_a_failing_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **options: object) -> str:
        raise OSError("no such repository")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(CheckpointError, match="no such repository"):
        Space.from_pretrained("someone/space")


def test_a_subclass_loads_as_itself(saved: Path) -> None:
    class Mine(Space):
        pass

    assert type(Mine.from_pretrained(saved)) is Mine
