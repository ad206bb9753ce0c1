"""Test the JSON lines of the training log, truncation on resumption, and logging to TensorBoard, W&B and trackio."""

import errno
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from train_cases import run, stop_at, tiny_config, tiny_store
from unialign.errors import CheckpointError, MissingDependencyError
from unialign.train._log import RunLog, read_log


def test_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog()
    log.open(path)
    log.write("start", 0, {"config": {"lr": 1}})
    log.write("step", 1, {"loss": 0.5, "terms": {"a": float("nan")}})
    assert read_log(path) == log.records
    assert read_log(path)[1]["terms"] == {"a": None}
    log.write("warning", 1, {"code": "x", "message": "y"})
    log.close()
    log.close()
    assert log.history == [{"step": 1, "loss": 0.5, "terms": {"a": None}}]
    assert [(w.code, w.message, w.step) for w in log.warnings] == [("x", "y", 1)]


def test_cut_back_to_a_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"kind": "step", "step": step}) + "\n" for step in range(1, 6)) + '{"ki')
    log = RunLog()
    assert [record["step"] for record in log.open(path, keep_steps=3)] == [1, 2, 3]
    log.write("step", 4, {})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_a_damaged_log_has_no_records(tmp_path: Path) -> None:
    for text in ("", "{", "[]\n", '{"step": "1"}\n', "\x00\xff\n", "[" * 5000):
        (tmp_path / "log.jsonl").write_text(text, encoding="latin-1")
        assert read_log(tmp_path / "log.jsonl") == []


def test_a_missing_log_has_no_records() -> None:
    assert read_log(Path("nowhere.jsonl")) == []
    log = RunLog()
    log.write("step", 1, {"loss": 1.0})
    assert log.history == [{"step": 1, "loss": 1.0}]


def test_a_full_disk(tmp_path: Path) -> None:
    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    log = RunLog()
    log.open(tmp_path / "log.jsonl")
    log._file = Full()  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match="No space left on device; checkpoints are intact"):
        log.write("step", 1, {})


class Board:
    made: list["Board"]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars = folder, purge_step, dict[tuple[str, int], float]()
        Board.made.append(self)

    def add_scalar(self, key: str, value: float, step: int) -> None:
        self.scalars[key, step] = value

    def close(self) -> None: ...


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Board.made = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Board))
    run(tiny_store(), tiny_config(log_to=("jsonl", "tensorboard")), out=tmp_path / "run")
    (board,) = Board.made
    assert board.folder == str(tmp_path / "run" / "tensorboard")
    assert board.purge_step == 1
    assert board.scalars["loss", 20] == pytest.approx(read_log(tmp_path / "run" / "log.jsonl")[-1]["loss"])
    assert ("terms/contrast/image-text", 3) in board.scalars
    assert ("health/rank/text", 4) in board.scalars


def test_a_missing_logger_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError, match=rf"unialign\[{name}\]"):
            run(tiny_store(), tiny_config(log_to=(name,)), out=tmp_path / "run")
    # The failed runs left no file that would block the next run.
    monkeypatch.undo()
    options: dict[str, Any] = {"out": tmp_path / "run"}
    run(tiny_store(), tiny_config(), **options)


class Tracked:
    def __init__(self, **settings: Any) -> None:
        self.settings, self.logged, self.finished = settings, list[tuple[int, dict[str, float]]](), False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def test_wandb_and_trackio_get_each_step_and_continue_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, list[Tracked]] = {"wandb": [], "trackio": []}
    for name, runs in made.items():
        fake = types.SimpleNamespace(init=lambda runs=runs, **settings: runs.append(Tracked(**settings)) or runs[-1])
        monkeypatch.setitem(sys.modules, name, fake)
    out, config = tmp_path / "run", tiny_config(log_to=("wandb", "trackio"), save_steps=5)

    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=out, on_step=stop_at(7))
    run(tiny_store(), config, out=out, resume="auto")
    history = [record for record in read_log(out / "log.jsonl") if record["kind"] == "step"]
    for name, key in (("wandb", "id"), ("trackio", "name")):
        first, second = made[name]
        assert first.settings[key] == second.settings[key]
        assert first.settings["config"]["objective"] == config.objective
        assert first.settings["resume"] == "allow"
        steps = dict(first.logged) | dict(second.logged)
        assert [steps[record["step"]]["loss"] for record in history] == [record["loss"] for record in history]
        assert "terms/contrast/image-text" in steps[20]
        assert first.finished
        assert second.finished
    run(tiny_store(), config, out=tmp_path / "other")
    assert made["wandb"][-1].settings["id"] != made["wandb"][0].settings["id"]


def test_a_failing_logger_is_dropped_with_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline(Tracked):
        def log(self, values: dict[str, float], step: int) -> None:
            super().log(values, step)
            if step == 3:
                raise RuntimeError("no\nconnection")

        def finish(self) -> None:
            super().finish()
            raise RuntimeError("still no connection")

    runs: list[Tracked] = [Offline(), Tracked()]
    for name, tracked in zip(("wandb", "trackio"), runs, strict=True):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(init=lambda tracked=tracked, **_: tracked))
    with pytest.warns(UserWarning, match="WandB failed at step 3 .*: no connection") as found:
        run(tiny_store(), tiny_config(log_to=("wandb", "trackio")), out=tmp_path / "run")
    assert sum("WandB" in str(warning.message) for warning in found) == 1
    assert [[step for step, _ in tracked.logged] for tracked in runs] == [[1, 2, 3], list(range(1, 21))]
    assert all(tracked.finished for tracked in runs)
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["step"] == 20


def test_an_error_of_closing_a_logger_does_not_hide_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unclosable(Tracked):
        def finish(self) -> None:
            raise RuntimeError("cannot finish")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: Unclosable()))
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(log_to=("wandb",)), out=tmp_path / "run", on_step=stop_at(2))
