"""Test that `fit` passes the standardized features of the batch to objectives with a `similarity_scale`."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train_cases import digest_of, finished, run, stop_at, tiny_config, tiny_store
from unialign.losses import LossOutput, UniAlign
from unialign.train import HealthWarning, _similarity_features

OPTIONS: dict[str, Any] = {"objective": "unialign", "objective_options": {"preset": "retrieval"}, "epochs": 2}


def test_batches_have_standardized_features(monkeypatch: pytest.MonkeyPatch) -> None:
    store, seen = tiny_store(), []
    compute = UniAlign.compute

    def record(self: UniAlign, embeddings: Any, **call: Any) -> LossOutput:
        if call.get("present") is not None and "audio" in call["present"] and len(embeddings["audio"]) > 4:
            seen.append((call["present"], call["similarity"]))
        return compute(self, embeddings, **call)

    monkeypatch.setattr(UniAlign, "compute", record)
    run(store, tiny_config(**OPTIONS))
    rows, expected = store.rows("train"), {}
    for name in store.modalities:
        x_NW = store.array(name)[rows].astype(np.float64)
        kept = store.present(name)[rows]
        expected[name] = torch.from_numpy((x_NW - x_NW[kept].mean(0)) / x_NW[kept].std(0)).float()
    assert len(seen) == 6  # two epochs of batches of 8, 8 and 7 rows
    for present, similarity in seen:
        assert set(similarity) == set(expected)
        for name, x_BW in similarity.items():
            mask = present.get(name, torch.ones(len(x_BW), dtype=torch.bool))
            for x in x_BW[mask]:
                assert (expected[name] - x).abs().amax(1).nan_to_num(torch.inf).min() < 1e-4


@pytest.mark.parametrize("changes", [{}, {"matryoshka_dims": (4,)}], ids=["plain", "Matryoshka"])
def test_only_modalities_with_a_scale_have_features(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    seen, take = [], _similarity_features.SimilarityFeatures.take

    def record(self: _similarity_features.SimilarityFeatures, positions_B: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(take(self, positions_B))
        return seen[-1]

    monkeypatch.setattr(_similarity_features.SimilarityFeatures, "take", record)
    options = {"similarity_scale": {"image": 5.0, "audio": 0.0}}
    run(tiny_store(), tiny_config(objective="infonce", objective_options=options, epochs=1, **changes))
    assert seen
    assert all(set(features) == {"image"} for features in seen)


def test_features_from_disk_equal_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tiny_store(path=tmp_path / "store")
    kept = digest_of(run(store, tiny_config(**OPTIONS)))
    monkeypatch.setattr(_similarity_features, "_IN_MEMORY_BYTES", 0)
    assert digest_of(run(store, tiny_config(**OPTIONS))) == kept


def test_interrupted_run_resumes_bit_by_bit(tmp_path: Path) -> None:
    config = tiny_config(**OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(2))
        result = run(tiny_store(), config, out=tmp_path / "run", resume="required")
    assert digest_of(result) == finished(**OPTIONS).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "kernel", "init": "gcca", "dropout": 0.0},
        {"matryoshka_dims": (4,)},
        {"infonce_warmup_ratio": 0.5},
        {"micro_batch_size": 3},
        {"objective": "infonce", "objective_options": {"similarity_scale": {"image": 5.0}}},
        {"objective": "sigmoid", "objective_options": {"similarity_scale": 5.0}},
    ],
    ids=str,
)
def test_other_settings(changes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        result = run(tiny_store(), tiny_config(**(OPTIONS | changes)))
    assert all(np.isfinite(record["loss"]) for record in result.history if "loss" in record)
