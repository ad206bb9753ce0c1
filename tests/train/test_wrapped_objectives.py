"""Test training on prefixes of the embeddings and with the fused term."""

from pathlib import Path

import pytest
import torch

import unialign as ua
from train_cases import DIMS, digest_of, run, stop_at, tiny_config, tiny_store
from unialign.errors import ConfigError
from unialign.losses import FusedTarget, InfoNCE, Matryoshka, create
from unialign.train import check_fit
from unialign.train._infonce_warmup import infonce_for_warmup
from unialign.train._run_settings import make_objective


def test_settings_wrap_the_objective() -> None:
    config = tiny_config(objective="infonce", objective_options={}, dim=4, matryoshka_dims=[2], fused_weight=0.5)
    objective = make_objective(config)
    assert isinstance(objective, Matryoshka)
    assert objective.dims == (2, 4)
    assert isinstance(objective.objective, FusedTarget)
    assert objective.objective.get_config()["weight"] == 0.5
    result = run(tiny_store(), config)
    assert result.objective.get_config() == objective.get_config()
    terms = result.history[-1]["terms"]
    assert {"d2/contrast/image-text", "d4/contrast/image-text", "d2/fused/others-text"} <= set(terms)
    assert result.history[-1]["temperature"] == 0.07
    instance = tiny_config(objective=objective, objective_options={}, dim=4)
    assert digest_of(run(tiny_store(), instance)) == digest_of(result)


def test_truncated_embeddings_are_normalized_prefixes() -> None:
    result = run(tiny_store(missing="none"), tiny_config(dim=4, matryoshka_dims=[2]))
    features = {name: torch.randn(5, dim) for name, dim in DIMS.items()}
    whole, short = result.space.encode(features), result.space.encode(features, dim=2)
    for name, z_BD in whole.items():
        torch.testing.assert_close(short[name], torch.nn.functional.normalize(z_BD[:, :2]))
    assert all(torch.equal(z_BD, whole[name]) for name, z_BD in result.space.encode(features, dim=4).items())
    for dim in (0, 5):
        with pytest.raises(ConfigError, match="dim must be an integer from 1 to 4"):
            result.space.encode(features, dim=dim)


def test_a_run_resumes_bit_by_bit(tmp_path: Path) -> None:
    options = {"temperature": {"image": 0.1, "text": 0.2, "audio": 0.3}, "temperature_mode": "learnable"}
    config = tiny_config(
        objective="infonce", objective_options=options, dim=4, matryoshka_dims=[2], infonce_warmup_ratio=0.3
    )
    whole = run(tiny_store(), config)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path, on_step=stop_at(3))
    assert digest_of(run(tiny_store(), config, out=tmp_path, resume="required")) == digest_of(whole)
    assert isinstance(whole.history[-1]["temperature"], float)


def test_the_warmup_has_the_same_wrappers() -> None:
    objective = Matryoshka(FusedTarget("gram", objective_options={"anchor": "text", "temperature": 0.2}), (2, 3))
    infonce = infonce_for_warmup(objective, tuple(DIMS))
    assert isinstance(infonce, Matryoshka)
    assert isinstance(infonce.objective, FusedTarget)
    assert isinstance(infonce.objective.objective, InfoNCE)
    assert infonce.objective.objective.get_config()["temperature"] == 0.2
    assert infonce.dims == (2, 3)
    assert create("matryoshka", **infonce.get_config()).get_config() == infonce.get_config()


def test_settings_that_do_not_fit() -> None:
    for dims in ([], [0], [2, 2], [1.5]):
        with pytest.raises(ConfigError, match="matryoshka_dims"):
            ua.TrainConfig(matryoshka_dims=dims)
    with pytest.raises(ConfigError, match=r"matryoshka_dims must be at most dim = 16, got \[8, 32\]"):
        ua.TrainConfig(dim=16, matryoshka_dims=(8, 32))
    with pytest.raises(ConfigError, match="unknown fused_subsets 'some'"):
        ua.TrainConfig(fused_subsets="some")
    two = tiny_config(modalities=["image", "text"], fused_weight=1.0)
    with pytest.raises(ConfigError, match="fused_target needs at least three modalities, got 'image', 'text'"):
        check_fit(tiny_store(), two)
