"""Test the modules for Lightning and for the Trainer of transformers, and the callbacks for trackers."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import unialign as ua
from unialign.errors import ConfigError, MissingDependencyError, ShapeError
from unialign.integrations.tracking import MetricTracker
from unialign.integrations.transformers import TrainerModel
from unialign.losses import InfoNCE


class Pairs(Dataset):
    def __init__(self, items=48):
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(items, 12, generator=generator)
        self.text = self.image @ torch.randn(12, 8, generator=generator)
        self.present = torch.arange(items) % 5 != 0

    def __len__(self):
        return len(self.image)

    def __getitem__(self, item):
        return {"image": self.image[item], "text": self.text[item], "present.text": self.present[item]}


def encoders():
    torch.manual_seed(0)
    return {"image": nn.Linear(12, 6), "text": nn.Linear(8, 6)}


def batch(items=16):
    data = Pairs()
    return {"image": data.image[:items], "text": data.text[:items], "present.text": data.present[:items]}


def test_the_loss_and_the_gradient_equal_those_of_a_direct_call():
    entries, towers = batch(), encoders()
    model = TrainerModel(towers, "infonce", options={"anchor": "all", "temperature": 0.1})
    model(**entries)["loss"].backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    other = encoders()
    z = {name: other[name](entries[name]) for name in other}
    total = InfoNCE(anchor="all", temperature=0.1)(z, present={"text": entries["present.text"]}).total
    total.backward()
    for name in other:
        assert torch.equal(found[f"model.encoders.{name}.weight"], other[name].weight.grad)


def test_ids_and_nested_inputs_reach_objective_and_encoder():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(20, 6)

        def forward(self, input_ids, attention_mask):
            return self.table(input_ids) * attention_mask.float().mean(1, keepdim=True)

    towers = {"image": nn.Linear(12, 6), "text": Tokens()}
    model = TrainerModel(towers, InfoNCE(anchor="all"))
    text = {"input_ids": torch.randint(0, 20, (16, 4)), "attention_mask": torch.ones(16, 4)}
    entries = {"image": batch()["image"], "text": text}
    plain = model(**entries)["loss"]
    grouped = model(**entries, ids=torch.arange(16) // 2)["loss"]
    assert plain.item() != grouped.item()
    evaluated = model.eval()(**entries)
    assert set(evaluated) == {"loss", "image", "text"}
    assert evaluated["text"].shape == (16, 6)


def test_wrong_encoders_and_batches_are_refused():
    with pytest.raises(ConfigError, match="at least two modalities"):
        TrainerModel({"image": nn.Linear(2, 2)})
    with pytest.raises(ConfigError, match=r"'present\.x'"):
        TrainerModel({"image": nn.Linear(2, 2), "present.x": nn.Linear(2, 2)})
    with pytest.raises(ConfigError, match="infonce"):
        TrainerModel(encoders(), "infonec")
    model = TrainerModel(encoders())
    with pytest.raises(ShapeError, match="the batch has image, but at least two"):
        model(image=torch.randn(4, 12))
    model = TrainerModel({"image": nn.Identity(), "text": nn.Identity()})
    with pytest.raises(ShapeError, match=r"\(B, D\) tensor, got shape \(4, 2, 3\)"):
        model(image=torch.randn(4, 2, 3), text=torch.randn(4, 3))


@pytest.mark.slow
def test_a_lightning_module_trains_validates_and_logs(tmp_path):
    lightning = pytest.importorskip("lightning")
    from unialign.integrations.lightning import AlignmentModule

    class Kept(lightning.pytorch.loggers.CSVLogger):
        def __init__(self, folder):
            super().__init__(folder)
            self.values = {}

        def log_metrics(self, metrics, step=None):
            self.values.update(metrics)

    module = AlignmentModule(encoders(), "infonce", options={"temperature_mode": "learnable"}, lr=1e-2)
    before = module.model.encoders["text"].weight.clone()
    logger = Kept(tmp_path)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    loader = DataLoader(Pairs(), batch_size=16)
    trainer.fit(module, loader, loader)
    assert not torch.equal(before, module.model.encoders["text"].weight)
    assert {"train/loss", "train/contrast/image-text", "val/loss"} <= set(logger.values)
    assert set(module(batch())) == {"image", "text"}
    decayed, plain = module.configure_optimizers().param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert (plain["weight_decay"], len(plain["params"])) == (0.0, 3)


def test_the_trainer_of_transformers_trains_and_evaluates(tmp_path):
    transformers = pytest.importorskip("transformers")
    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=16, num_train_epochs=2, report_to=[], remove_unused_columns=False,
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    model = TrainerModel(encoders(), "infonce")
    before = model.model.encoders["image"].weight.clone()
    trainer = transformers.Trainer(model, arguments, train_dataset=Pairs(), eval_dataset=Pairs())
    trainer.train()
    assert not torch.equal(before, model.model.encoders["image"].weight)


class Run:
    def __init__(self):
        self.logged, self.finished = [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_an_existing_run_gets_losses_and_mappings():
    run, z = Run(), {"a": torch.randn(8, 4), "b": torch.randn(8, 4)}
    out = InfoNCE(anchor="all")(z)
    with MetricTracker(run) as tracker:
        tracker.log(out, step=3)
        tracker.log({"lr": 0.1, "deep": {"x": torch.tensor(2.0)}, "name": "text", "bad": float("nan")}, step=4)
    assert run.logged == [
        (3, {"loss": float(out.total), "terms/contrast/a-b": float(out.terms["contrast/a-b"])}),
        (4, {"lr": 0.1, "deep/x": 2.0}),
    ]
    assert not run.finished
    tracker.log(out, step=5)
    assert len(run.logged) == 2


def test_a_tracker_is_a_callback_of_fit():
    run, generator = Run(), torch.Generator().manual_seed(0)
    arrays = {name: torch.randn(40, 6, generator=generator).numpy() for name in ("a", "b")}
    store = ua.data.EmbeddingStore.from_arrays(arrays)
    config = ua.TrainConfig(objective="infonce", dim=4, epochs=2, batch_size=20)
    result = ua.fit(store, config, on_step=MetricTracker(run), progress="none")
    assert [step for step, _ in run.logged] == list(range(1, len(run.logged) + 1))
    assert run.logged[-1][1]["loss"] == pytest.approx(result.history[-1]["loss"])


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_named_tracker_starts_and_ends_a_run(name, tmp_path, monkeypatch):
    run = Run()
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(init=lambda **_: run))
    with MetricTracker(name, folder=tmp_path / "mine", settings={"lr": 1}) as tracker:
        tracker.log({"loss": 1.0}, step=1)
    assert run.logged == [(1, {"loss": 1.0})]
    assert run.finished


def test_a_tracker_without_values_starts_no_run(tmp_path, monkeypatch):
    started = []
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: started.append(1) or Run()))
    with MetricTracker("wandb", folder=tmp_path / "mine") as tracker:
        assert not started
        assert not (tmp_path / "mine").exists()
    tracker.log({"loss": 1.0}, step=1)
    assert not started


class FakeMLflow:
    def __init__(self):
        self.experiments, self.runs = {}, {}

    def MlflowClient(self):
        return self

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name):
        self.experiments[name] = types.SimpleNamespace(experiment_id=f"e-{name}")
        return f"e-{name}"

    def create_run(self, experiment_id, run_name):
        assert experiment_id == "e-unialign"
        run = {"name": run_name, "metrics": [], "params": {}, "status": "RUNNING"}
        self.runs[f"r{len(self.runs)}"] = run
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"r{len(self.runs) - 1}"))

    def update_run(self, run_id, status):
        self.runs[run_id]["status"] = status

    def log_param(self, run_id, key, value):
        assert isinstance(value, str)
        self.runs[run_id]["params"][key] = value

    def log_metric(self, run_id, key, value, step):
        assert all(c.isalnum() or c in "_-./ " for c in key), key
        self.runs[run_id]["metrics"].append((step, key, value))

    def set_terminated(self, run_id):
        self.runs[run_id]["status"] = "FINISHED"


def test_mlflow_gets_each_step_and_continues_its_run(tmp_path, monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    arrays = {name: torch.randn(40, 6).numpy() for name in ("a", "b")}
    store = ua.data.EmbeddingStore.from_arrays(arrays)
    options = {"objective": "infonce", "dim": 4, "batch_size": 14, "log_to": ("mlflow",), "logging_steps": 1, "seed": 1}

    def stop(info):
        if info["step"] == 3:
            raise KeyboardInterrupt

    config = ua.TrainConfig(epochs=3, **options)
    with pytest.raises(KeyboardInterrupt):
        ua.fit(store, config, out=tmp_path / "run", on_step=stop, progress="none")
    assert fake.runs["r0"]["status"] == "FINISHED"
    result = ua.fit(store, config, out=tmp_path / "run", resume="auto", progress="none")
    (run,) = fake.runs.values()
    assert (run["name"], run["status"], run["params"]["objective"]) == ("run", "FINISHED", "infonce")
    losses = {step: value for step, key, value in run["metrics"] if key == "loss"}
    assert losses == {record["step"]: record["loss"] for record in result.history}
    assert "terms/contrast/a-b" in {key for _, key, _ in run["metrics"]}


def test_names_that_mlflow_rejects_are_replaced(tmp_path, monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with MetricTracker("mlflow", folder=tmp_path / "mine", settings={"a": "x" * 9999}) as tracker:
        tracker.log({"recall/image->text": 0.5}, step=7)
    assert fake.runs["r0"]["metrics"] == [(7, "recall/image-_text", 0.5)]
    assert len(fake.runs["r0"]["params"]["a"]) == 500


def test_unknown_and_missing_trackers_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="wandb, trackio, mlflow or an existing run, got 'comet'"):
        MetricTracker("comet")
    with pytest.raises(ConfigError, match="method log"):
        MetricTracker(3)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[mlflow\]"):
        MetricTracker("mlflow", folder=tmp_path)
