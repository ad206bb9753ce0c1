"""What `fit` and `TrainConfig` refuse before anything is written: arguments of a wrong kind."""

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


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_settings(name: str, value: Any) -> None:
    for make in (lambda settings: TrainConfig(**settings), TrainConfig.from_dict):
        with pytest.raises(ConfigError, match=name):
            make({name: value})


@pytest.mark.parametrize("values", [5, None, [1], "a", {5: 1}, {None: 1}, {("a",): 1}])
def test_dicts(values: Any) -> None:
    with pytest.raises(ConfigError):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize("store", ["st/ok", None, 5, Path("x"), {"a": 1}])
def test_stores(store: Any) -> None:
    with pytest.raises(DataError, match=r"store must be an EmbeddingStore.*data\.load"):
        fit(store, tiny_config())


@pytest.mark.parametrize("config", [{"epochs": 1}, None, 5, "a"])
def test_configs(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"config must be a TrainConfig.*from_dict"):
        fit(tiny_store(), config)


@pytest.mark.parametrize("out", [5, True, [1], b"x", "a\0", "x" * 5000, "\ud800"], ids=lambda out: repr(out)[:10])
def test_outs(out: Any) -> None:
    with pytest.raises(ConfigError, match="out"):
        fit(tiny_store(), tiny_config(), out=out)


@pytest.mark.parametrize("on_step", [5, "a", {}])
def test_callbacks(on_step: Any) -> None:
    with pytest.raises(ConfigError, match="on_step must be a function"):
        fit(tiny_store(), tiny_config(), on_step=on_step)


def test_a_job_that_nobody_joined_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    """Each process would train the whole space by itself, and all would write to one folder."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"number 1 of 2 .* `with unialign\.distributed\.start\(\):`"):
        fit(tiny_store(), tiny_config(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(tiny_store(), tiny_config(epochs=1), group=None, progress="none")


@pytest.mark.parametrize("group", ["all", 5, True])
def test_groups(group: Any) -> None:
    with pytest.raises(ConfigError, match="group must be"):
        fit(tiny_store(), tiny_config(), group=group)
