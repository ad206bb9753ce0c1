"""Test folders of saved models: kinds are not mixed, and concurrent calls write one after the other."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.correction import Repair
from unialign.errors import CheckpointError
from unialign.io import _lock, save_folder, staged_files
from unialign.migration import Bridge

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(60, 4)).astype(np.float32)
BRIDGE = ua.bridge(ROWS, ROWS[:, ::-1].copy(), pairs=np.arange(60), methods=["ridge"])
REPAIR = ua.repair({"a": ROWS, "b": ROWS[:, ::-1] + 1})


def save_decoder(folder: Path) -> None:
    save_folder("decoder", folder, settings={}, metadata={}, tensors={"w": torch.ones(2)}, card="card")


SAVE: dict[str, Callable[[Path], None]] = {
    "space": lambda folder: ua.Space({"a": 3}, dim=2).save_pretrained(folder),
    "decoder": save_decoder,
    "repair": REPAIR.save,
    "bridge": BRIDGE.save,
}
LOAD: dict[str, Callable[[Path], object]] = {
    "space": ua.Space.from_pretrained,
    "repair": Repair.load,
    "bridge": Bridge.load,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("held", SAVE)
def test_a_model_of_another_kind_is_kept(tmp_path: Path, held: str) -> None:
    SAVE[held](tmp_path)
    before = contents(tmp_path)
    for kind in SAVE.keys() - {held}:
        message = f"holds a {held}, which is not overwritten; save the {kind} in another folder"
        with pytest.raises(CheckpointError, match=message):
            SAVE[kind](tmp_path)
    assert contents(tmp_path) == before
    SAVE[held](tmp_path)


@pytest.mark.parametrize("held", LOAD)
def test_an_interrupted_save_of_another_kind_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    replace = os.replace

    def fail_at_config(source: Path, target: Path) -> None:
        if target.suffix == ".json":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at_config)
        with pytest.raises(CheckpointError, match="Input/output error"):
            SAVE[held](tmp_path)
    for kind in SAVE.keys() - {held}:
        with pytest.raises(CheckpointError, match=f"holds a {held}"):
            SAVE[kind](tmp_path)
    LOAD[held](tmp_path)


def test_files_of_other_programs_do_not_count_as_a_model(tmp_path: Path) -> None:
    (tmp_path / "bridge.json").write_text('{"span": 3}')
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    SAVE["space"](tmp_path)
    assert (tmp_path / "bridge.json").read_text() == '{"span": 3}'
    LOAD["space"](tmp_path)


@pytest.mark.parametrize("kind", LOAD)
def test_threads_save_one_after_the_other(tmp_path: Path, kind: str) -> None:
    save_in_threads(tmp_path, kind)
    LOAD[kind](tmp_path)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_systems_without_locks_of_folders_use_a_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "fcntl", None)
    save_in_threads(tmp_path, "space")
    LOAD["space"](tmp_path)


def save_in_threads(folder: Path, kind: str) -> None:
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        try:
            for _ in range(5):
                SAVE[kind](folder)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_save_waits_for_another_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom unialign.io._lock import wait_for_folder\n"
        "with wait_for_folder(pathlib.Path(sys.argv[1])): print('locked', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        thread = threading.Thread(target=SAVE["space"], args=(tmp_path,))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        other.kill()
    thread.join(10)
    assert not thread.is_alive()
    LOAD["space"](tmp_path)
    assert not (tmp_path / ".saving").exists()


def test_an_error_in_the_block_keeps_the_model(tmp_path: Path) -> None:
    SAVE["space"](tmp_path)
    before = contents(tmp_path)

    def fail() -> None:
        with staged_files("space", tmp_path) as staging:
            (staging / "config.json").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert contents(tmp_path) == before
