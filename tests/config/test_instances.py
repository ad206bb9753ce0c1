"""Test configurations with objective instances instead of names."""

import pytest
import torch

import unialign as ua
from unialign import registry
from unialign.config import TrainConfig
from unialign.errors import ConfigError
from unialign.losses import InfoNCE, LossTerm, Objective


class Margin(Objective):
    name = "margin"
    display_name = "Margin"

    def __init__(self, width=0.2, *, learned=False):
        super().__init__()
        self.width = width
        self.scale = torch.nn.Parameter(torch.ones(())) if learned else 1.0
        self.learned = learned

    def terms(self, batch):
        return {"margin": LossTerm((batch.z_MBD.sum() * self.scale - self.width).relu(), 1.0)}

    def get_config(self):
        return {"width": self.width, "learned": self.learned}


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_an_instance_becomes_its_name_and_options():
    built_in = TrainConfig(objective=InfoNCE(anchor="text", temperature=0.1))
    assert built_in.objective == "infonce"
    assert built_in.objective_options["temperature"] == 0.1
    config = TrainConfig(objective=Margin(0.3))
    assert (config.objective, config.objective_options) == ("margin", {"width": 0.3, "learned": False})
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert isinstance(ua.losses.create(config.objective, **config.objective_options), Margin)
    assert config.replace(epochs=3).objective_options == config.objective_options


def test_the_error_for_an_unknown_name_describes_how_to_add_it():
    settings = TrainConfig(objective=Margin()).to_dict()
    registry._registered.clear()
    with pytest.raises(ConfigError, match=r"unknown objective 'margin'.*install the package that adds it"):
        TrainConfig.from_dict(settings)


def test_instances_that_get_config_does_not_rebuild_raise():
    trained = Margin(learned=True)
    with torch.no_grad():
        trained.scale += 1

    class Forgetful(Margin):
        name = "forgetful"

        def get_config(self):
            return {"width": self.width}

    class Rigid(Margin):
        name = "rigid"

        def get_config(self):
            return {"height": 1}

    class Impostor(Margin):
        name = "infonce"

    for objective, message in (
        (trained, "has trained parameters"),
        (Forgetful(learned=True), "has trained parameters"),
        (Rigid(), "raises TypeError"),
        (Impostor(), "name of a built-in objective"),
        (Margin, "objective must be a string"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrainConfig(objective=objective)
    with pytest.raises(ConfigError, match="objective_options must be empty"):
        TrainConfig(objective=Margin(), objective_options={"width": 1})
