"""Test the validation of training settings and their round trips through JSON and YAML."""

import json
import math
from typing import Any

import pytest
import yaml

from unialign.errors import ConfigError
from unialign.train import TrainConfig


@pytest.mark.parametrize("dump", [lambda x: json.loads(json.dumps(x)), lambda x: yaml.safe_load(yaml.safe_dump(x))])
def test_round_trip(dump: Any) -> None:
    config = TrainConfig(
        objective="gram",
        objective_options={"anchor": "text", "temperature_bounds": (0.01, 0.5)},
        modalities=["text", "image"],  # type: ignore[arg-type]
        max_grad_norm=None,
        save_steps=None,
    )
    assert TrainConfig.from_dict(dump(config.to_dict())) == config


def test_an_empty_dict_gives_the_defaults() -> None:
    assert TrainConfig.from_dict({}) == TrainConfig()


def test_options_are_a_copy() -> None:
    options = {"anchor": "text"}
    config = TrainConfig(objective_options=options)
    options["anchor"] = "image"
    assert config.objective_options["anchor"] == "text"


def test_unknown_setting_suggests_one() -> None:
    with pytest.raises(ConfigError, match="unknown training setting 'batchsize'; did you mean 'batch_size'"):
        TrainConfig.from_dict({"batchsize": 3})
    with pytest.raises(ConfigError, match="unknown training setting 'zzz'; the settings are objective,"):
        TrainConfig.from_dict({"zzz": 3})


def test_yaml_number_written_as_a_string() -> None:
    with pytest.raises(ConfigError, match=r"lr must be .* got '1e-3'; in YAML write 1\.0e-3"):
        TrainConfig.from_dict(yaml.safe_load("lr: 1e-3"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objective", "clip"),
        ("head", "deep"),
        ("input_norm", "whiten"),
        ("precision", "fp16"),
        ("precision", "fp8"),
        ("epochs", -1),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", 1),
        ("micro_batch_size", 0),
        ("micro_batch_size", 2.5),
        ("gradient_accumulation_steps", 0),
        ("dim", -1),
        ("hidden", 0),
        ("lr", 0),
        ("lr", math.inf),
        ("lr", math.nan),
        ("weight_decay", -0.1),
        ("min_lr", 1.0),
        ("dropout", 1.0),
        ("warmup_ratio", 1.0),
        ("infonce_warmup_ratio", 1.1),
        ("max_grad_norm", 0),
        ("seed", -1),
        ("save_steps", 0),
        ("save_total_limit", 0),
        ("logging_steps", 0),
        ("monitor_steps", 0),
        ("log_to", "jsonl"),
        ("log_to", ("comet",)),
        ("modalities", "text"),
        ("modalities", ("text",)),
        ("modalities", ("text", "text")),
        ("modalities", ("text", 1)),
        ("objective_options", ["anchor"]),
        ("objective_options", {"anchor": object()}),
        ("objective_options", {"temperature": math.nan}),
    ],
)
def test_invalid_values_raise(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainConfig(**{name: value})


def test_the_name_of_a_closed_form_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"closed form, not an objective.*--head kernel --init gcca --epochs 0.*gcca"):
        TrainConfig(objective="kernel_gcca")


def test_from_dict_raises_without_a_mapping() -> None:
    with pytest.raises(ConfigError, match="must map setting names to values"):
        TrainConfig.from_dict(["lr"])  # type: ignore[arg-type]
