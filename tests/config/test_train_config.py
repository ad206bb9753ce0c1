"""Test the validation of training settings and their round trips through JSON and YAML."""

import json
import math
from typing import Any

import pytest
import yaml

from embed_cases import text_encoder
from unialign.config import TuneConfig
from unialign.encoders import create, load
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


def test_tune_has_modes_and_nested_settings() -> None:
    config = TrainConfig(tune={"image": "lora", "speech_*": {"mode": "all", "lr": 1e-3}})
    assert config.tuning("speech_fr") == TuneConfig(mode="all", lr=1e-3)
    assert config.tuning("text").mode == "frozen"
    changed = config.override({"tune.image.lr": 1e-4, "tune.rna.seq.mode": "last"})
    assert changed.tuning("image") == TuneConfig(mode="lora", lr=1e-4)
    assert changed.tuning("rna.seq").mode == "last"
    assert TrainConfig.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tune": {"image": "some"}}, r"tune.image: unknown mode 'some'"),
        ({"tune": {"image": {"lr": 1}}}, "needs 'mode'"),
        ({"tune": {"image": {"mode": "all", "lr": -1}}}, "tune.image: lr"),
        ({"tune": "all"}, "tune must be a mapping"),
        ({"encoders": {"image": 3}}, "encoders.image must be a string"),
        ({"encoders": {"image": {"kind": "builtin"}}}, "encoders.image must be the reference"),
    ]
    for settings, message in wrong:
        with pytest.raises(ConfigError, match=message):
            TrainConfig(**settings)
    with pytest.raises(ConfigError, match=r"matches both 's\*' and '\*t'"):
        TrainConfig(tune={"s*": "all", "*t": "lora"}).tuning("st")
    with pytest.raises(ConfigError, match="lr must be"):
        TrainConfig.check({"tune.image.lr": -1})


def test_an_encoder_becomes_its_reference() -> None:
    encoder = create("builtin:bag")
    config = TrainConfig(encoders={"text": encoder})
    assert config.encoders["text"]["fingerprint"] == encoder.fingerprint
    assert load(config.encoders["text"], device="cpu").fingerprint == encoder.fingerprint
    with pytest.raises(ConfigError, match=r"fit\(..., encoders="):
        TrainConfig(encoders={"text": text_encoder()})
