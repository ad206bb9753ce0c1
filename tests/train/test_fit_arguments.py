"""Test that `fit` and `TrainConfig` reject arguments of the wrong type before any file is written."""

from pathlib import Path
from typing import Any

import pytest

from train_cases import tiny_config, tiny_store
from unialign.errors import ConfigError, DataError
from unialign.train import TrainConfig, fit

SETTINGS: list[tuple[str, Any]] = [
    *(("max_grad_norm", value) for value in (float("inf"), float("nan"), 0, -1, True, "a", 10**400)),
    *(("modalities", value) for value in (5, [[1], [2]], "ab", ["a"], ["a", "a"], [1, 2], True)),
    *(("log_to", value) for value in (5, None, "jsonl", [["jsonl"]], [None], True)),
    *(("objective_options", value) for value in (5, None, [1], {("a",): 1}, {"a": object()})),
    *(("objective", value) for value in (5, None, ["unialign"])),
]


def test_settings() -> None:
    for name, value in SETTINGS:
        for make in (lambda settings: TrainConfig(**settings), TrainConfig.from_dict):
            with pytest.raises(ConfigError, match=name):
                make({name: value})
    for values in (5, None, [1], "a", {5: 1}, {None: 1}, {("a",): 1}):
        with pytest.raises(ConfigError):
            TrainConfig.from_dict(values)  # type: ignore[arg-type]


def test_arguments_of_fit() -> None:
    for store in ("st/ok", None, 5, Path("x"), {"a": 1}):
        with pytest.raises(DataError, match=r"data must be an EmbeddingStore.*data\.load"):
            fit(store, tiny_config())  # type: ignore[arg-type]
    for config in ({"epochs": 1}, 5, "a"):
        with pytest.raises(ConfigError, match=r"config must be a TrainConfig.*from_dict"):
            fit(tiny_store(), config)  # type: ignore[arg-type]
    cases: list[tuple[str, list[Any], str]] = [
        ("out", [5, True, [1], b"x", "a\0", "x" * 5000, "\ud800"], "out"),
        ("on_step", [5, "a", {}], "on_step must be a function"),
        ("group", ["all", 5, True], "group must be"),
        ("init_from", ["runs/space", 5], "init_from must be a Space"),
        ("eval_callback", [5, lambda step, space: None], "eval_callback must be an EvalCallback"),
    ]
    for name, values, message in cases:
        for value in values:
            with pytest.raises(ConfigError, match=message):
                fit(tiny_store(), tiny_config(), **{name: value})


def test_a_job_without_init_raises_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `init`, every process would train a separate space and write to the same folder."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"process 1 of 2 .*`with unialign\.distributed\.init\(\):`"):
        fit(tiny_store(), tiny_config(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(tiny_store(), tiny_config(epochs=1), group=None, progress="none")
