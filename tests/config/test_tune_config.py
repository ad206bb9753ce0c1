"""Test the settings of the training of an encoder."""

import pytest

from unialign.config import TuneConfig
from unialign.errors import ConfigError


def test_the_name_of_a_mode_is_a_configuration():
    assert TuneConfig.from_dict("lora") == TuneConfig(mode="lora")
    assert TuneConfig.from_dict({"mode": "last", "blocks": 3}) == TuneConfig(mode="last", blocks=3)
    config = TuneConfig(mode="lora", r=4, alpha=2, targets=["query", "value"], lr=1e-4)
    assert config.targets == ("query", "value")
    assert TuneConfig.from_dict(config.to_dict()) == config
    assert TuneConfig(mode="all").override({"lr": 0.1}).lr == 0.1


def test_learning_rates():
    assert TuneConfig(mode="lora").learning_rate(0.5) == 0.5
    assert TuneConfig(mode="all").learning_rate(0.5) == pytest.approx(0.05)
    assert TuneConfig(mode="all").learning_rate(0.5, initial="random") == 0.5
    assert TuneConfig(mode="last").learning_rate(0.5) == pytest.approx(0.05)
    assert TuneConfig(mode="all", lr=0.25).learning_rate(0.5) == 0.25


def test_wrong_settings_raise():
    for values, message in (
        ("full", "unknown mode 'full'; expected one of 'frozen', 'last', 'lora', 'all'"),
        ({}, "the tuning configuration needs 'mode'"),
        (3, "must map setting names to values, got int"),
        ({"mode": "last", "blocks": 0}, "blocks must be an integer of at least 1"),
        ({"mode": "lora", "r": 1.5}, "r must be an integer"),
        ({"mode": "lora", "alpha": 0}, "alpha must be a positive finite number"),
        ({"mode": "lora", "lora_dropout": 1}, r"lora_dropout must be a number in \[0, 1\)"),
        ({"mode": "lora", "targets": "query"}, r"targets must be a list such as \['query'\]"),
        ({"mode": "lora", "targets": []}, "targets must be one or more distinct names"),
        ({"mode": "lora", "targets": ["q", "q"]}, "targets must be one or more distinct names"),
        ({"mode": "lora", "targets": [3]}, "must be a string, got 3"),
        ({"mode": "all", "dropout": 0.1}, "dropout"),
        ({"mode": "all", "lr": -1}, "lr must be a positive finite number"),
        ({"mode": "all", "weight_decay": -1}, "weight_decay"),
        ({"mode": "all", "rank": 8}, "unknown tuning setting 'rank'"),
    ):
        with pytest.raises(ConfigError, match=message):
            TuneConfig.from_dict(values)
