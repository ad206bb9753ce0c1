"""Test an objective as the loss of the Trainer of sentence-transformers."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny_towers
from unialign import losses
from unialign.errors import ConfigError, ShapeError
from unialign.integrations.sentence_transformers import Loss

pytestmark = pytest.mark.integrations
needs_datasets = pytest.mark.skipif(
    find_spec("datasets") is None, reason="needs the environment of `make test-integrations`"
)
COLUMNS = ["text", "image", "audio"]


@pytest.fixture
def model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def model_weights(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").named_parameters()


def inputs(model: Any) -> list[dict[str, Any]]:
    media = (tiny_towers.TEXTS, tiny_towers.images(), tiny_towers.sounds())
    return [model.preprocess(column) for column in media]


def dataset(kinds: list[str], repeats: int = 4) -> Any:
    from datasets import Dataset

    media = {
        "text": tiny_towers.TEXTS,
        "image": tiny_towers.images(),
        "audio": [sound["audio"] for sound in tiny_towers.sounds()],
    }
    return Dataset.from_dict({kind: media[kind] * repeats for kind in kinds})


def arguments(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    return SentenceTransformerTrainingArguments(
        str(folder), max_steps=2, per_device_train_batch_size=3, learning_rate=1e-2, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, logging_steps=1, seed=0,
        router_mapping={column: column for column in COLUMNS},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["unialign", "infonce", "gram"])
def test_value_and_gradient_are_those_of_the_objective(model: Any, name: str) -> None:
    model.eval()
    options = {"anchor": "text"}
    loss = Loss(model, name, columns=COLUMNS, **options)
    total = loss(inputs(model), torch.zeros(3))
    total.backward()
    found = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    z = {column: model(features)["sentence_embedding"] for column, features in zip(COLUMNS, inputs(model), strict=True)}
    expected = losses.create(name, **options)(z).total
    expected.backward()
    assert total.item() == expected.item()
    assert total.ndim == 0
    assert len(found) > 30
    for key, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(found[key], value.grad, atol=0, rtol=0)


@needs_datasets
def test_two_steps_of_the_trainer(model: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformerTrainer

    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    loss = Loss(model, "infonce", columns=COLUMNS, anchor="all", temperature_mode="learnable")
    temperature = [parameter.detach().clone() for parameter in loss.objective.parameters()]
    data = dataset(COLUMNS)
    trainer = SentenceTransformerTrainer(model, arguments(tmp_path), train_dataset=data, eval_dataset=data, loss=loss)
    assert np.isfinite(trainer.train().training_loss)
    assert [entry["loss"] > 0 for entry in trainer.state.log_history if "loss" in entry] == [True, True]
    assert trainer.evaluate()["eval_loss"] > 0
    changed = [key for key, value in model.named_parameters() if not torch.equal(before[key], value)]
    for kind in COLUMNS:
        assert any(f".{kind}." in key for key in changed), f"no weight of {kind} changed"
    after = list(loss.objective.parameters())
    assert after
    assert not torch.equal(temperature[0], after[0])


@needs_datasets
def test_several_data_sets(model: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformerTrainer

    data = {"captions": dataset(["text", "image"]), "sounds": dataset(["text", "audio"])}
    loss = {
        "captions": Loss(model, "unialign", columns=["text", "image"]),
        "sounds": Loss(model, "unialign", columns=["text", "audio"]),
    }
    trainer = SentenceTransformerTrainer(model, arguments(tmp_path), train_dataset=data, loss=loss)
    assert np.isfinite(trainer.train().training_loss)


@needs_datasets
def test_two_processes_compute_the_weights_of_one(folder: Path, tmp_path: Path) -> None:
    script, weights = str(Path(__file__).with_name("train_on_processes.py")), []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for name, launcher in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]),
    ):
        out = tmp_path / f"{name}.safetensors"
        command = [sys.executable, *launcher, script, str(folder), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        weights.append(load_file(out))
    one, two = weights
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-6, rtol=0, msg=name)
    before = dict(model_weights(folder))
    assert any(not torch.equal(before[name], weight) for name, weight in one.items())


@needs_datasets
def test_missing_cells_raise(model: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer

    data = Dataset.from_dict({"text": ["a", None, "c"], "image": tiny_towers.images()})
    loss = Loss(model, columns=["text", "image"])
    with pytest.raises(ValueError, match="Unsupported input type: NoneType"):
        SentenceTransformerTrainer(model, arguments(tmp_path), train_dataset=data, loss=loss).train()


def test_the_number_of_columns(model: Any) -> None:
    loss = Loss(model, columns=["text", "image"])
    with pytest.raises(ShapeError, match="the batch has 3 columns, but columns names 2: text, image"):
        loss(inputs(model), None)


def test_invalid_columns(model: Any) -> None:
    for columns in ("text", ["text"], ["text", "text"], []):
        with pytest.raises(ConfigError, match="columns must be at least two different names"):
            Loss(model, columns=columns)


def test_settings_of_the_model_card(model: Any) -> None:
    settings = Loss(model, "infonce", columns=COLUMNS, anchor="text").get_config_dict()
    assert settings["objective"] == "infonce"
    assert settings["columns"] == COLUMNS
    assert settings["anchor"] == "text"
    instance = losses.InfoNCE(anchor="text")
    assert Loss(model, instance, columns=COLUMNS).objective is instance
