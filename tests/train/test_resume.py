"""Test that interrupted runs resume to bit-equal weights, and only with the same settings and data."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from train_cases import bits, checkpoint_bits, digest_of, finished, run, stop_at, tiny_config, tiny_store, without_time
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.space import Space
from unialign.train import HealthWarning, _trainer

RECIPES: dict[str, dict[str, Any]] = {
    "infonce, learnable temperature": {
        "objective": "infonce",
        "objective_options": {"anchor": "text", "temperature_mode": "learnable"},
    },
    "gram after InfoNCE": {
        "objective": "gram",
        "objective_options": {"anchor": "text"},
        "infonce_warmup_ratio": 0.3,
    },
    # The negatives depend on the number of calls so far, here two per optimizer step.
    "symile, drawn negatives": {"objective": "symile", "objective_options": {"seed": 3}},
    "unialign": {"objective": "unialign", "objective_options": {"anchor": "text", "centroid_weight": 1.0}},
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> dict[str, Any]:
    return RECIPES[request.param]


def crash(info: Any) -> None:
    raise RuntimeError("power cut")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(3))
    return tmp_path / "run"


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, recipe: dict[str, Any]) -> None:
    """The runs have dropout, two batches per step, and NaN in absent rows; the InfoNCE warmup ends with step 6."""
    whole, config = finished(**recipe), tiny_config(**recipe)
    for stop in (1, 3, 6, 10, 19, 20) if "infonce_warmup_ratio" in recipe else (3, 20):
        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt, match=f"after step {stop} of 20"):
            run(tiny_store(), config, out=out, on_step=stop_at(stop))
        # The result must not depend on the random state before resuming.
        torch.manual_seed(stop)
        resumed = run(tiny_store(), config, out=out, resume="required")
        assert digest_of(resumed) == whole.digest, stop
        assert checkpoint_bits(out) == whole.checkpoint, stop
        assert without_time(resumed.history) == whole.history, stop
        saved = Space.from_pretrained(out / "space")
        assert bits(saved.state_dict()) == bits(whole.result.space.state_dict()), stop


@pytest.mark.parametrize("name", ["gram after InfoNCE", "symile, drawn negatives"])
def test_many_interruptions(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    config = tiny_config(**recipe)
    for stop in (2, 5, 6, 7, 13, 20):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_store(), config, out=tmp_path / "run", resume="auto", on_step=stop_at(stop))
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert digest_of(result) == finished(**recipe).digest


def test_a_crash_goes_back_to_the_last_checkpoint_and_the_log_with_it(tmp_path: Path) -> None:
    config = tiny_config(save_steps=4)

    def crash_at_11(info: Any) -> None:
        if info["step"] == 11:
            crash(info)

    with pytest.raises(RuntimeError, match="power cut"):
        run(tiny_store(), config, out=tmp_path / "run", on_step=crash_at_11)
    log = tmp_path / "run" / "log.jsonl"
    assert json.loads(log.read_text().splitlines()[-1])["step"] == 11
    with log.open("a") as file:
        file.write('{"kind": "step", "st')
    steps: list[int] = []
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto", on_step=lambda i: steps.append(i["step"]))
    assert steps == list(range(9, 21))
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "step"] == list(range(1, 21))
    assert [record["step"] for record in records if record["kind"] == "resume"] == [8]
    assert without_time(result.history) == finished().history


def test_a_crash_before_the_first_checkpoint_starts_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RuntimeError):
        run(tiny_store(), tiny_config(), out=out, on_step=crash)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        run(tiny_store(), tiny_config(), out=out, resume="required")
    with pytest.raises(CheckpointError, match=r"made with lr=0\.01; this run has lr=0\.02"):
        run(tiny_store(), tiny_config(lr=0.02), out=out, resume="auto")
    with pytest.raises(DataError, match="fingerprint"):
        run(tiny_store(seed=1), tiny_config(), out=out, resume="auto")
    assert digest_of(run(tiny_store(), tiny_config(), out=out, resume="auto")) == finished().digest


def test_a_finished_run_is_returned_unchanged(tmp_path: Path) -> None:
    first = run(tiny_store(), tiny_config(), out=tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")}
    before |= {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.*") if p.suffix}
    again = run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto", on_step=crash)
    assert digest_of(again) == digest_of(first)
    assert again.history == first.history
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert len(before) == 3 + 1 + 2


def test_a_run_killed_before_its_space_was_written(tmp_path: Path) -> None:
    first = run(tiny_store(), tiny_config(), out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "space")
    run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto")
    saved = Space.from_pretrained(tmp_path / "run" / "space")
    assert bits(saved.state_dict()) == bits(first.space.state_dict())


def test_auto_starts_a_new_run_and_required_does_not(tmp_path: Path) -> None:
    run(tiny_store(), tiny_config(epochs=1), out=tmp_path / "a" / "b", resume="auto")
    with pytest.raises(CheckpointError, match="no complete checkpoint to resume from"):
        run(tiny_store(), tiny_config(epochs=1), out=tmp_path / "c", resume="required")


def test_never_overwrites(stopped: Path) -> None:
    before = {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=r"an unfinished run \(newest checkpoint: step-00000003\).*resume='auto'"):
        run(tiny_store(), tiny_config(), out=stopped)
    assert before == {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()}
    run(tiny_store(), tiny_config(), out=stopped, resume="auto")
    with pytest.raises(ConfigError, match="a finished run"):
        run(tiny_store(), tiny_config(), out=stopped)


def test_other_settings_or_data_raise(stopped: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"lr": 0.02},
        {"epochs": 11},
        {"seed": 1},
        {"objective": "unialign"},
        {"objective_options": {"temperature": 0.2}},
        {"modalities": ("text", "image", "audio")},
        {"infonce_warmup_ratio": 0.5},
    ]
    for change in changes:
        name = next(iter(change))
        with pytest.raises(
            CheckpointError, match=rf"step-00000003 was made with {name}[.a-z]*=.*; this run has {name}"
        ):
            run(tiny_store(), tiny_config(**change), out=stopped, resume="auto")
    with pytest.raises(CheckpointError, match=r"made with lr=0\S+, seed=0; this run has lr=0.02, seed=1; use the same"):
        run(tiny_store(), tiny_config(lr=0.02, seed=1), out=stopped, resume="auto")
    other = tiny_store(seed=1, name="other")
    with pytest.raises(DataError) as caught:
        run(other, tiny_config(), out=stopped, resume="auto")
    for part in ("step-00000003", "'tiny'", "'other'", tiny_store().fingerprint, other.fingerprint):
        assert part in str(caught.value)


def test_bookkeeping_may_differ(stopped: Path) -> None:
    config = tiny_config(save_steps=5, save_total_limit=1, logging_steps=3, monitor_steps=9)
    assert digest_of(run(tiny_store(), config, out=stopped, resume="auto")) == finished().digest


def test_another_environment_is_reported(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _trainer.training_environment
    monkeypatch.setattr(
        _trainer, "training_environment", lambda device, processes: environment(device, processes) | {"threads": 99}
    )
    with pytest.warns(HealthWarning, match=rf"threads from {torch.get_num_threads()} to 99"):
        result = run(tiny_store(), tiny_config(), out=stopped, resume="auto")
    assert [warning.code for warning in result.warnings] == ["environment"]


def test_warnings_are_not_repeated_after_a_resumption(tmp_path: Path) -> None:
    config = tiny_config(objective="unialign", objective_options={"alignment_weight": 1e-4})
    with pytest.warns(HealthWarning, match="alignment_weight"), pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(10))
    with warnings.catch_warnings():
        warnings.simplefilter("error", HealthWarning)
        result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert [(warning.code, warning.step) for warning in result.warnings] == [("gradient_ratio", 4)]
