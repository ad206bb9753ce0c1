"""Test training, saving by name and options, and resumption with objective instances in `TrainConfig`."""

from pathlib import Path

import pytest
import torch
import yaml

from train_cases import Pull, digest_of, run, stop_at, tiny_config, tiny_store
from unialign import registry
from unialign.errors import CheckpointError, ConfigError
from unialign.losses import InfoNCE
from unialign.train import TrainConfig


@pytest.fixture
def unregistered() -> None:
    registry._registered.pop(("objectives", "pull"), None)


@pytest.mark.filterwarnings("ignore::unialign.train.HealthWarning")
@pytest.mark.usefixtures("unregistered")
def test_a_run_with_an_instance_resumes_bit_by_bit(tmp_path: Path) -> None:
    config = tiny_config(objective=Pull(0.5), epochs=4)
    assert (config.objective, config.objective_options) == ("pull", {"strength": 0.5})
    whole = run(tiny_store(), config)
    assert isinstance(whole.objective, Pull)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(3))
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert settings["objective"] == "pull"
    with pytest.raises(CheckpointError, match=r"made with objective_options\.strength=0\.5; this run has"):
        run(tiny_store(), tiny_config(objective=Pull(0.6), epochs=4), out=tmp_path / "run", resume="required")
    resumed = run(tiny_store(), TrainConfig.from_dict(settings), out=tmp_path / "run", resume="required")
    assert digest_of(resumed) == digest_of(whole)
    # A process that has not registered the class cannot create the objective.
    registry._registered.pop(("objectives", "pull"))
    with pytest.raises(ConfigError, match="'pull'"):
        TrainConfig.from_dict(settings)


def test_an_instance_of_a_built_in_objective_is_saved_by_name() -> None:
    by_name = tiny_config(objective_options={"anchor": "text"}, epochs=2)
    instance = tiny_config(objective=InfoNCE(anchor="text"), epochs=2)
    assert instance.objective == "infonce"
    assert digest_of(run(tiny_store(), instance)) == digest_of(run(tiny_store(), by_name))


def test_instances_that_a_name_and_options_do_not_describe_raise() -> None:
    trained = InfoNCE(temperature_mode="learnable")
    with torch.no_grad():
        next(trained.parameters()).add_(1.0)
    with pytest.raises(ConfigError, match="trained parameters"):
        tiny_config(objective=trained)
    with pytest.raises(ConfigError, match="objective_options must be empty"):
        tiny_config(objective=Pull(), objective_options={"strength": 1.0})
