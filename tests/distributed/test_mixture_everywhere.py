"""Test that `fit` on a mixture on several processes gives the loss curve and the weights of one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processes import Pool
from train_cases import digest_of, run as run_alone, stop_at, tiny_config
from unialign.config import MixtureMode
from unialign.data import EmbeddingStore, Mixture


def mixture(mode: MixtureMode) -> Mixture:
    rng = np.random.default_rng(0)

    def store(name: str, items: int) -> EmbeddingStore:
        columns = {column: rng.normal(size=(items, 4)).astype(np.float32) for column in (name, "text")}
        return EmbeddingStore.from_arrays(columns)

    return Mixture({"photos": store("image", 21), "sounds": store("sound", 11)}, weights={"photos": 2}, mode=mode)


def run(rank: int, group: Any, mode: MixtureMode, stop: int | None, options: dict[str, Any]) -> dict[str, Any]:
    config = tiny_config(dropout=0.0, epochs=4)
    on_step = None if stop is None else stop_at(stop)
    try:
        result = run_alone(mixture(mode), config, group=group, on_step=on_step, **options)
    except KeyboardInterrupt:
        return {}
    return {
        "losses": [record["loss"] for record in result.history],
        "digest": digest_of(result),
        "weights": {name: tensor.numpy() for name, tensor in result.space.state_dict().items()},
    }


@pytest.mark.parametrize("mode", ["alternate", "blend"])
def test_curve_and_weights_of_one_process(pool: Pool, mode: MixtureMode, tmp_path: Path) -> None:
    """In alternating batches, no process has rows of all modalities."""
    alone = run(0, None, mode, None, {})
    everywhere = pool.run(run, mode, None, {}, processes=3)
    pool.run(run, mode, 4, {"out": tmp_path / "run"}, processes=2)
    continued = pool.run(run, mode, None, {"out": tmp_path / "run", "resume": "required"}, processes=3)
    for seen in (*everywhere, *continued):
        assert seen["losses"] == pytest.approx(alone["losses"], abs=1e-4)
        for name, weights in alone["weights"].items():
            np.testing.assert_allclose(seen["weights"][name], weights, rtol=1e-3, atol=2e-4)
    assert len({seen["digest"] for seen in everywhere}) == 1
