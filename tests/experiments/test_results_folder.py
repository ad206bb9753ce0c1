"""Test that commands handle results folders after crashes, failed commands and manual changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from unialign.cli import main
from unialign.config import CompareConfig, DiagnoseConfig, EvaluateConfig, TrainConfig
from unialign.errors import ConfigError
from unialign.experiments import open_run_dir
from unialign.io import lock_folder

QUICK = ["--objective", "infonce", "--epochs", "2", "--dim", "4", "--head", "linear", "--batch-size", "16"]


def write_files(folder: Path, seed: int = 0, *, test_items: int = 10) -> None:
    draw = np.random.default_rng(seed)
    split = np.repeat(["train", "test"], [40 - test_items, test_items])
    for name in ("a", "b"):
        np.savez(folder / f"{name}.npz", **{name: draw.normal(size=(40, 5)), "split": split})


@pytest.fixture
def failure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)

    def run(*words: str, data: tuple[str, ...] = ("a.npz", "b.npz"), command: str = "train") -> str:
        options = QUICK if command == "train" else []
        status = main([command, *data, *words, *options])
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        if status == 0:
            return ""
        assert len(printed) < 1500, "one short paragraph"
        return " ".join(printed.split())

    return run


def test_data_in_a_results_folder_are_verified_or_replaced(tmp_path, failure):
    write_files(tmp_path, test_items=0)
    assert "items" in failure()
    data, out = tmp_path / "runs/train/data", tmp_path / "runs/train"
    assert data.is_dir()
    write_files(tmp_path)
    assert failure() == ""
    write_files(tmp_path, seed=1)
    assert "created from other files" in failure()
    write_files(tmp_path)
    array = data / "arrays/a.npy"
    intact = array.read_bytes()
    array.write_bytes(intact[:-8] + b"\0\0\0\0\0\0\0\0")
    for words, sources in (((), ("a.npz", "b.npz")), (("--config", str(out / "config.yaml"), "--out", "again"), ())):
        message = failure(*words, data=sources)
        assert "arrays/a.npy was altered" in message
        assert "Delete" in message
    shutil.rmtree(data)
    assert failure() == ""
    assert array.read_bytes() == intact


def test_leftovers_of_a_killed_command_do_not_block_its_folder(tmp_path, failure):
    out = tmp_path / "runs/train"
    (out / "checkpoints").mkdir(parents=True)
    (out / ".lock").touch()
    (out / ".data.0123456789ab.partial/arrays").mkdir(parents=True)
    (out / ".data.0123456789ab.old").mkdir()
    (out / ".config.yaml.0123456789ab.partial").write_text("half")
    assert failure() == ""
    assert not [path.name for path in out.iterdir() if path.suffix in (".partial", ".old")]
    incomplete = out / "checkpoints/step-00000001"
    incomplete.mkdir()
    shutil.rmtree(out / "space")
    assert failure() == ""
    assert not incomplete.exists()


def test_opening_a_results_folder_deletes_leftovers_and_compares_the_settings(tmp_path):
    settings = {"entries": {"a": {"lr": 1}}}
    assert open_run_dir(tmp_path, "comparison", settings) is None
    leftover = tmp_path / ".config.yaml.0123456789ab.partial"
    leftover.write_text("half")
    assert open_run_dir(tmp_path, "comparison", settings) == settings
    assert not leftover.exists()
    leftover.write_text("half")
    with lock_folder(tmp_path, doing="training"):
        open_run_dir(tmp_path, "comparison")
    assert leftover.exists(), "another process may still be writing it"
    with pytest.raises(
        ConfigError, match=r"another comparison: entries\.a\.lr is 1 in the folder, but 2 was given; choose another"
    ):
        open_run_dir(tmp_path, "comparison", {"entries": {"a": {"lr": 2}}})
    with pytest.raises(ConfigError, match=r"another kind of result \(comparison, not run\)"):
        open_run_dir(tmp_path, "run")


def test_a_damaged_results_folder_names_the_problem(tmp_path, failure):
    assert failure() == ""
    out = tmp_path / "runs/train"
    (out / "config.yaml").rename(tmp_path / "config.yaml")
    assert "config.yaml is missing" in failure()
    (tmp_path / "config.yaml").rename(out / "config.yaml")
    for name in ("checkpoints", "space"):
        (out / name).rename(tmp_path / name)
        (out / name).write_text("a file")
        assert f"{name} must be a folder, but is a file" in failure()
        (out / name).unlink()
        (tmp_path / name).rename(out / name)
    seconds = json.loads((out / "results.json").read_text())["runs"][0]["seconds"]
    assert seconds > 0
    step = b'{"kind": "step", "step": 1'
    contents = [b"", b"{}", b"[1]", b"\xff\xfe", b'{"kind": "step"}', b"[" * 100_000, b"null", step + b"}"]
    contents += [step + b', "seconds": ' + value + b"}" for value in (b'"x"', b"NaN", b"1e999", b"9" * 400, b"[]")]
    for content in contents:
        (out / "log.jsonl").write_bytes(content + b"\n")
        assert failure() == "", content[:50]
        assert json.loads((out / "results.json").read_text())["runs"][0]["seconds"] is None
    (out / "log.jsonl").unlink()
    assert failure() == ""


def test_a_wrong_configuration_or_data_argument_is_one_short_message(tmp_path, failure):
    assert failure() == ""
    intact = (tmp_path / "runs/train/config.yaml").read_text()
    cases = [
        ("foo: 1\n" + intact, "unknown key 'foo'"),
        ("seed: 7\n" + intact, "did you mean `train.seed`?"),
        ("trian: {}\n" + intact, "did you mean 'train'?"),
        ("data: {name: x, fingerprint: y, path: 3}\ntrain: {}\n", "data.path must be the path of a store, got 3"),
        ("data: {name: x, fingerprint: y}\ntrain: {}\n", "no data.path"),
    ]
    for text, message in cases:
        (tmp_path / "config.yaml").write_text(text)
        assert message in failure("--config", "config.yaml", "--out", "again", data=()), text
    for command in ("train", "compare", "diagnose"):
        for source in ("x" * 5000, "a=" + "x" * 5000, "x\0y"):
            assert failure("--out", "again", data=(source,), command=command) != ""
    assert failure("runs/train/space", "x" * 5000, "--out", "again", data=(), command="evaluate") != ""


def test_counts_have_a_maximum():
    entries = {"a": {"train": {}}}
    for config, values in (
        (CompareConfig, {"data": "digits", "entries": entries, "resamples": 10**11}),
        (EvaluateConfig, {"space": "s", "data": "digits", "resamples": 1_000_001}),
        (DiagnoseConfig, {"files": ["a"], "resamples": 1_000_001}),
        (TrainConfig, {"epochs": 10**9 + 1}),
    ):
        with pytest.raises(ConfigError, match="must be an integer from"):
            config.from_dict(values)
