"""Test that writes to full and read-only disks raise clear errors, keep earlier files, and leave no partial files."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.__main__ import main as run_study
from train_cases import digest_of, finished, run, stop_at, tiny_config, tiny_store
from unialign import data
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, UniAlignError
from unialign.io._files import replace_file
from unialign.space import Space
from unialign.train._checkpoint import Snapshot, load_checkpoint, newest_checkpoint, save_checkpoint
from unialign.train._log import RunLog, read_log

resource = pytest.importorskip("resource", reason="limits on the size of files are of POSIX")


@contextlib.contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """Limit the size of files, so that a larger write fails midway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- writers --------------------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, version: int) -> None:
    big = torch.full((400, 2), float(version))
    tensors = {"space": {"w": big}, "optimizer": {"m": big}}
    save_checkpoint(folder / "checkpoints", Snapshot(version, tensors, {}), keep=2)


def write_space(folder: Path, version: int) -> None:
    torch.manual_seed(version)
    Space({"image": 6, "text": 4}, dim=5, hidden=40).save_pretrained(folder / "space")


def write_store(folder: Path, version: int) -> None:
    EmbeddingStore.write(folder / "store", {"x": np.full((300, 3), version, np.float32)}, overwrite="replace")


def write_file(folder: Path, version: int) -> None:
    replace_file(folder / "results.json", str(version) * 5000)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "checkpoint": write_checkpoint,
    "space": write_space,
    "store": write_store,
    "file": write_file,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_midway_keeps_earlier_files(tmp_path: Path, kind: str) -> None:
    write = WRITERS[kind]
    for limit in (0, 1, 200, 1000, 3000):
        folder = tmp_path / str(limit)
        folder.mkdir()
        with largest_file(limit), pytest.raises(UniAlignError, match="File too large"):
            write(folder, 1)
        assert contents(folder) == {}
        write(folder, 1)
        before = contents(folder)
        with largest_file(limit), pytest.raises(UniAlignError, match=r"cannot (write|save).*File too large"):
            write(folder, 2)
        assert contents(folder) == before
        write(folder, 2)
        assert contents(folder) != before


# --- training -------------------------------------------------------------------------------------------------------


def test_a_run_continues_from_the_checkpoint_before_the_one_that_did_not_fit(tmp_path: Path) -> None:
    config = tiny_config(save_steps=4)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(8))
    largest = max(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"))
    with largest_file(largest - 1), pytest.raises(CheckpointError, match=r"step-00000008 is intact.*resume='auto'"):
        run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "step-00000008"
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert digest_of(result) == finished().digest


def test_a_log_that_cannot_grow_raises_once(tmp_path: Path) -> None:
    """Closing the log repeats the failed write, but must not raise a second error."""
    log = RunLog()
    log.open(tmp_path / "log.jsonl")
    with largest_file(100):
        log.write("step", 1, {"loss": 1.0})
        with pytest.raises(CheckpointError, match=r"cannot write the log .*File too large; checkpoints are intact"):
            log.write("step", 2, {"loss": 0.5, "why": "x" * 200})
        log.close()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1]


# --- real disks -----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB and return its path; skip the test if mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if mounted is not None:
        pytest.skip(f"cannot mount a small disk: {mounted}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def mount(*options: str) -> str | None:
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip()


def fill(folder: Path, *, leave: int) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - leave)
    return filler


@pytest.mark.parametrize("leave", [0, 4096, 12288])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk(disk: Path, kind: str, leave: int) -> None:
    write = WRITERS[kind]
    write(disk, 1)
    before = contents(disk)
    filler = fill(disk, leave=leave)
    message = ""
    try:
        write(disk, 2)
    except UniAlignError as error:
        message = str(error)
    filler.unlink()
    if message:
        assert "No space left on device" in message
        assert contents(disk) == before
        write(disk, 2)
    assert message or leave
    assert contents(disk) != before
    assert not [name for name in contents(disk) if "partial" in name or ".saving" in name]


def test_a_run_on_a_full_disk_continues_when_there_is_room(disk: Path) -> None:
    config = tiny_config(save_steps=2, save_total_limit=50)
    filler = fill(disk, leave=150 * 1024)
    with pytest.raises(CheckpointError, match=r"No space left on device.*resume='auto'"):
        run(tiny_store(), config, out=disk / "run")
    newest = newest_checkpoint(disk / "run" / "checkpoints")
    assert newest is not None
    step = load_checkpoint(newest).step
    assert step >= 2
    filler.unlink()
    result = run(tiny_store(), config, out=disk / "run", resume="required")
    assert digest_of(result) == finished().digest
    assert [record["step"] for record in result.history] == list(range(1, 21))


def test_a_log_on_a_disk_that_fills_up_stops_the_run(disk: Path) -> None:
    config = tiny_config(save_steps=None)

    def fill_at_third(info: Mapping[str, Any]) -> None:
        if info["step"] == 3:
            fill(disk, leave=0)

    with pytest.raises(CheckpointError, match=r"cannot write the log .*No space left on device.*resume='auto'"):
        run(tiny_store(), config, out=disk / "run", on_step=fill_at_third)
    (disk / "filler").unlink()
    result = run(tiny_store(), config, out=disk / "run", resume="auto")
    assert digest_of(result) == finished().digest
    assert [record["step"] for record in result.history] == list(range(1, 21))


@pytest.fixture
def read_only(disk: Path) -> Path:
    """Write version 1 of each kind of file to a disk, then remount the disk read-only."""
    for write in WRITERS.values():
        write(disk, 1)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(save_steps=4), out=disk / "run", on_step=stop_at(8))
    assert mount("-o", "remount,ro", str(disk)) is None
    return disk


@pytest.mark.parametrize("kind", WRITERS)
def test_a_read_only_disk(read_only: Path, kind: str) -> None:
    before = contents(read_only)
    with pytest.raises(UniAlignError, match="Read-only file system"):
        WRITERS[kind](read_only, 2)
    assert contents(read_only) == before


def test_a_run_on_a_read_only_disk_raises_before_it_trains(read_only: Path) -> None:
    for out, resume in (("run", "auto"), ("another", "never")):
        steps: list[int] = []
        with pytest.raises(CheckpointError, match="Read-only file system"):
            run(
                tiny_store(),
                tiny_config(save_steps=4),
                out=read_only / out,
                resume=resume,
                on_step=lambda info, steps=steps: steps.append(info["step"]),
            )
        assert steps == []


@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits", "--epochs", "1"],
        ["compare", "digits", "--epochs", "1", "--seeds", "0"],
        ["diagnose", "digits"],
        ["evaluate", "{disk}/../digits-space", "digits"],
        ["research", "ablation"],
    ],
    ids=lambda words: words[0],
)
def test_commands_on_a_read_only_disk_report_it(
    read_only: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    digits = data.load_dataset("digits")
    Space({name: digits.dim(name) for name in digits.modalities}, dim=2).save_pretrained(
        read_only.parent / "digits-space"
    )
    words = [*(word.format(disk=read_only) for word in words), "--out", str(read_only / "out")]
    assert (run_study(words[1:]) if words[0] == "research" else main(words)) == 2
    errors = capsys.readouterr().err
    assert "Read-only file system" in errors
    assert "Traceback" not in errors
