"""An interrupted run continues to the bit-identical end, and only where it may."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from train_cases import (
    bits,
    checkpoint_bits,
    digest_of,
    run,
    stop_at,
    tiny_config,
    tiny_store,
    without_time,
)

from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.space import Space
from unialign.train import HealthWarning, _loop as loop_module

RECIPES: dict[str, dict[str, Any]] = {
    "infonce, learnable temperature": {
        "objective": "infonce",
        "objective_options": {"anchor": "text", "temperature_mode": "learnable"},
    },
    "gram after a warm start": {
        "objective": "gram",
        "objective_options": {"anchor": "text"},
        "infonce_warmup_ratio": 0.3,
    },
    # Its negatives are drawn by the number of training steps so far, two to an optimiser step here.
    "symile, drawn negatives": {"objective": "symile", "objective_options": {"seed": 3}},
    "unialign": {"objective": "unialign", "objective_options": {"anchor": "text", "centroid_weight": 1.0}},
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> dict[str, Any]:
    return RECIPES[request.param]


@pytest.mark.parametrize("stop", [1, 3, 6, 10, 19, 20])
def test_10_and_10_are_20(tmp_path: Path, recipe: dict[str, Any], stop: int) -> None:
    """Dropout, two batches a step, rows with NaN placeholders; step 6 is the last of the warm start."""
    config = tiny_config(**recipe)
    whole = run(tiny_store(), config, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match=f"after step {stop} of 20"):
        run(tiny_store(), config, out=tmp_path / "parts", on_step=stop_at(stop))
    # Whatever state the process is in when it comes back.
    torch.manual_seed(stop)
    parts = run(tiny_store(), config, out=tmp_path / "parts", resume="required")
    assert digest_of(parts) == digest_of(whole)
    assert checkpoint_bits(tmp_path / "parts") == checkpoint_bits(tmp_path / "whole")
    assert without_time(parts.history) == without_time(whole.history)
    saved = Space.from_pretrained(tmp_path / "parts" / "space")
    assert bits(saved.state_dict()) == bits(whole.space.state_dict())


def test_many_interruptions(tmp_path: Path, recipe: dict[str, Any]) -> None:
    config = tiny_config(**recipe)
    for stop in (2, 5, 6, 7, 13, 20):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_store(), config, out=tmp_path / "run", resume="auto", on_step=stop_at(stop))
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert digest_of(result) == digest_of(run(tiny_store(), config))


def test_a_crash_goes_back_to_the_last_checkpoint_and_the_log_with_it(tmp_path: Path) -> None:
    config = tiny_config(save_steps=4)

    def crash(info: Any) -> None:
        if info["step"] == 11:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tiny_store(), config, out=tmp_path / "run", on_step=crash)
    log = tmp_path / "run" / "log.jsonl"
    assert json.loads(log.read_text().splitlines()[-1])["step"] == 11
    # A line that the crash cut short.
    with log.open("a") as file:
        file.write('{"kind": "step", "st')
    heard: list[int] = []
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto", on_step=lambda i: heard.append(i["step"]))
    assert heard == list(range(9, 21))
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "step"] == list(range(1, 21))
    assert [record["step"] for record in records if record["kind"] == "resume"] == [8]
    assert without_time(result.history) == without_time(run(tiny_store(), config).history)


def test_a_crash_before_the_first_checkpoint_starts_again(tmp_path: Path) -> None:
    def crash(info: Any) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=crash)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="required")
    with pytest.raises(CheckpointError, match=r"made with lr=0\.01, this run has lr=0\.02"):
        run(tiny_store(), tiny_config(lr=0.02), out=tmp_path / "run", resume="auto")
    with pytest.raises(DataError, match="fingerprint"):
        run(tiny_store(seed=1), tiny_config(), out=tmp_path / "run", resume="auto")
    result = run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto")
    assert digest_of(result) == digest_of(run(tiny_store(), tiny_config()))


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    first = run(tiny_store(), tiny_config(), out=tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.safetensors")}
    before |= {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.*")}

    def no_step(info: Any) -> None:
        raise AssertionError(info)

    again = run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto", on_step=no_step)
    assert digest_of(again) == digest_of(first)
    assert again.history == first.history
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert len(before) == 3 + 1 + 2


def test_a_run_that_died_before_its_space_was_written(tmp_path: Path) -> None:
    first = run(tiny_store(), tiny_config(), out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "space")
    run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto")
    saved = Space.from_pretrained(tmp_path / "run" / "space")
    assert bits(saved.state_dict()) == bits(first.space.state_dict())


def test_auto_starts_where_nothing_is(tmp_path: Path) -> None:
    run(tiny_store(), tiny_config(), out=tmp_path / "a" / "b", resume="auto")
    with pytest.raises(CheckpointError, match="no complete checkpoint to resume from"):
        run(tiny_store(), tiny_config(), out=tmp_path / "c", resume="required")


def test_never_overwrites(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(3))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=r"an unfinished run \(newest checkpoint: step-00000003\).*resume='auto'"):
        run(tiny_store(), tiny_config(), out=tmp_path / "run")
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto")
    with pytest.raises(ConfigError, match="a finished run"):
        run(tiny_store(), tiny_config(), out=tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.02},
        {"epochs": 11},
        {"seed": 1},
        {"objective": "unialign"},
        {"objective_options": {"temperature": 0.2}},
        {"modalities": ("text", "image", "audio")},
        {"infonce_warmup_ratio": 0.5},
    ],
)
def test_other_settings(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(3))
    name = next(iter(change))
    with pytest.raises(CheckpointError, match=rf"step-00000003 was made with {name}=.*this run has {name}="):
        run(tiny_store(), tiny_config(**change), out=tmp_path / "run", resume="auto")


def test_other_bookkeeping_is_welcome(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(3))
    config = tiny_config(save_steps=5, save_total_limit=1, logging_steps=3, monitor_steps=9)
    result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert digest_of(result) == digest_of(run(tiny_store(), tiny_config()))


def test_other_data(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(3))
    other = tiny_store(seed=1, name="other")
    with pytest.raises(DataError) as caught:
        run(other, tiny_config(), out=tmp_path / "run", resume="auto")
    for part in ("step-00000003", "'tiny'", "'other'", tiny_store().fingerprint, other.fingerprint):
        assert part in str(caught.value)


def test_another_environment_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(3))
    environment = loop_module.environment
    monkeypatch.setattr(
        "unialign.train._fit.environment", lambda device, processes: environment(device, processes) | {"threads": 99}
    )
    with pytest.warns(HealthWarning, match="threads 1 then, 99 now"):
        result = run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="auto")
    assert [warning.code for warning in result.warnings] == ["environment"]


def test_warnings_survive_a_resumption(tmp_path: Path) -> None:
    config = tiny_config(objective="unialign", objective_options={"alignment_weight": 1e-4})
    with pytest.warns(HealthWarning, match="alignment_weight"), pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(10))
    with warnings.catch_warnings():
        # Said once in a run is enough.
        warnings.simplefilter("error", HealthWarning)
        result = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert [(warning.code, warning.step) for warning in result.warnings] == [("gradient_ratio", 4)]
