"""Test that several processes start from the same closed form."""

from typing import Any

from processes import Pool
from train_cases import digest_of, run as run_alone, tiny_config, tiny_store
from unialign.closed_form import gcca

OPTIONS: dict[str, Any] = {"head": "kernel", "init": "gcca", "init_regularization": 0.01, "init_spectrum_power": 0.5}


def run(rank: int, group: Any, epochs: int) -> dict[str, Any]:
    config = tiny_config(**OPTIONS, epochs=epochs, dropout=0.0)
    result = run_alone(tiny_store(), config, group=group)
    weights = {name: tensor.numpy() for name, tensor in result.space.state_dict().items()}
    return {"digest": digest_of(result), "weights": weights}


def test_all_processes_start_from_the_same_closed_form(pool: Pool) -> None:
    kept = pool.run(run, 0, processes=2)
    assert kept[0]["digest"] == kept[1]["digest"]
    space = gcca(tiny_store(), dim=8, regularization=0.01, spectrum_power=0.5)
    for name, tensor in space.state_dict().items():
        assert abs(tensor.numpy() - kept[0]["weights"][name]).max() <= 1e-4, name
    trained = pool.run(run, 2, processes=2)
    assert trained[0]["digest"] == trained[1]["digest"]
    alone = run_alone(tiny_store(), tiny_config(**OPTIONS, epochs=2, dropout=0.0)).space
    for name, tensor in alone.state_dict().items():
        assert abs(tensor.numpy() - trained[0]["weights"][name]).max() <= 1e-3, name
