"""Test that several processes add a modality as one process does."""

import warnings
from typing import Any

import numpy as np
import pytest

from processes import Pool
from train_cases import run as run_alone, tiny_config, tiny_store
from unialign.space import Space
from unialign.train import HealthWarning, TrainConfig

LINEAR: dict[str, Any] = {"head": "linear", "init": "ridge", "init_regularization": 0.1}


def base_space() -> Space:
    return fit(tiny_config(epochs=1, dropout=0.0, modalities=("image", "text")), None)["space"]


def fit(config: TrainConfig, group: Any, **options: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        result = run_alone(tiny_store(), config, group=group, **options)
    weights = {name: tensor.numpy() for name, tensor in result.space.state_dict().items()}
    return {"space": result.space, "weights": weights, "history": result.history}


def add(rank: int, group: Any, changes: dict[str, Any]) -> dict[str, Any]:
    config = tiny_config(epochs=3, dropout=0.0, micro_batch_size=2, **changes)
    found = fit(config, group, init_from=base_space(), train=["audio"])
    return {key: found[key] for key in ("weights", "history")}


def error_of(rank: int, group: Any) -> str:
    try:
        fit(tiny_config(), group, init_from=base_space(), train=[["audio"], ["text"]][rank])
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize("changes", [{}, LINEAR])
def test_the_curve_of_one_process(pool: Pool, changes: dict[str, Any]) -> None:
    """Some processes have micro-batches without a row of the trained modality."""
    alone, together = add(0, None, changes), pool.run(add, changes, processes=3)
    base = {name: tensor.numpy() for name, tensor in base_space().state_dict().items()}
    for seen in together:
        assert all(np.array_equal(seen["weights"][name], base[name]) for name in base)
        for name, expected in alone["weights"].items():
            assert np.array_equal(seen["weights"][name], together[0]["weights"][name]), name
            np.testing.assert_allclose(seen["weights"][name], expected, atol=2e-4)
    for one, other in zip(alone["history"], together[0]["history"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)


def test_different_modalities_are_an_error_on_every_process(pool: Pool) -> None:
    messages = pool.run(error_of, processes=2)
    assert all("'text' is in the data" in m or "audio" in m for m in messages)
    assert all(messages)
