"""Test the InfoNCE warmup of each objective, and that all objectives train."""

from typing import Any

import pytest
import torch

from train_cases import DIMS, run, tiny_config, tiny_store
from unialign.losses import InfoNCE, create, names, parameter_names
from unialign.train._infonce_warmup import infonce_for_warmup

MODALITIES = tuple(DIMS)
DEFAULTS = InfoNCE().get_config()


def anchored(name: str) -> dict[str, Any]:
    return {"anchor": "text"} if "anchor" in parameter_names(name) else {}


def test_every_objective_has_an_infonce_phase() -> None:
    for name in names():
        infonce = infonce_for_warmup(create(name, **anchored(name)), MODALITIES)
        assert isinstance(infonce, InfoNCE)
        assert infonce.anchor == ("text" if "anchor" in parameter_names(name) else None)


def test_a_temperature_of_cosines_is_kept() -> None:
    kept = {"temperature": 0.2, "temperature_mode": "learnable", "temperature_bounds": [0.02, 0.5]}
    for name in ("gram", "cs_aligner", "cua", "modgap"):
        infonce = infonce_for_warmup(create(name, anchor="text", **kept), MODALITIES)
        assert {key: infonce.get_config()[key] for key in kept} == kept


def test_temperature_of_unialign_is_kept() -> None:
    assert infonce_for_warmup(create("unialign", temperature=0.2), MODALITIES).get_config()["temperature"] == 0.2


@pytest.mark.parametrize(
    ("name", "own"),
    [("symile", {"temperature": 0.001, "temperature_bounds": (0.0001, 1.0)}), ("triangle", {"temperature": 0.3})],
)
def test_other_temperatures_are_not_kept(name: str, own: dict[str, Any]) -> None:
    """Temperatures of other logits do not fit InfoNCE; Symile's products of M vectors are far smaller than cosines."""
    infonce = infonce_for_warmup(create(name, **anchored(name), **own), MODALITIES)
    for key in ("temperature", "temperature_mode", "temperature_bounds"):
        assert infonce.get_config()[key] == DEFAULTS[key]


@pytest.mark.parametrize("name", ["sigmoid", "align_uniform"])
def test_objectives_without_temperature_use_the_default(name: str) -> None:
    assert infonce_for_warmup(create(name, anchor="all"), MODALITIES).get_config() == DEFAULTS


@pytest.mark.filterwarnings("ignore::unialign.train.HealthWarning")
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("sigmoid", {}),
        ("sigmoid", {"sharing": "per_pair", "modalities": list(MODALITIES)}),
        ("cs_aligner", {"anchor": "text", "temperature_mode": "learnable"}),
        ("modgap", {"anchor": "text"}),
        ("cua", {"cross_term": "xu"}),
        ("align_uniform", {}),
        ("unialign", {"partition_mix": 0.5}),
    ],
)
def test_pair_objectives_train(name: str, own: dict[str, Any]) -> None:
    """On a tiny store with absent rows and shared ids, the loss falls and parameters of the objective change."""
    result = run(tiny_store(), tiny_config(objective=name, objective_options=own, epochs=30, dropout=0.0))
    losses = [record["loss"] for record in result.history]
    assert sum(losses[-5:]) < sum(losses[:5])
    learned = list(result.objective.parameters())
    assert bool(learned) == (name == "sigmoid" or own.get("temperature_mode") == "learnable")
    assert all(torch.isfinite(value) and value != 0 for value in learned)
