"""Test closed forms as entries of a comparison."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from early_stopping_cases import store_with_validation
from train_cases import run, tiny_store
from unialign.cli._compare import new_comparison, repeated_comparison
from unialign.cli._main import main
from unialign.config import CLOSED_FORMS, CompareConfig, TrainConfig, closed_form_config, closed_form_of
from unialign.experiments import make_entry
from unialign.experiments._results import _note


def test_settings_of_closed_forms() -> None:
    for name, form in CLOSED_FORMS.items():
        config = closed_form_config(name, {"objective": "gram", "lr": 0.1, "head": "mlp", "epochs": 5, "landmarks": 9})
        assert (config.epochs, config.dim, config.landmarks, config.head) == (0, 256, 9, form.head)
        assert closed_form_of(config) == name
        assert make_entry(config).label == form.label
        assert closed_form_config(name, {"dim": 4, "input_norm": "unit"}).dim == 4
    assert closed_form_of(TrainConfig()) is None
    assert closed_form_config("kernel_gcca", {"input_norm": "unit"}).input_norm == "unit"


def test_a_comparison_states_closed_forms_and_repeats_from_its_configuration(tmp_path: Path) -> None:
    store = tiny_store(path=tmp_path / "store")
    names = ["infonce", "gcca", "kernel_gcca", "ridge"]
    arguments = ["--epochs", "1", "--seeds", "0", "1", "--dim", "8", "--workers", "1", "--resamples", "600"]
    arguments += ["--init-regularization", "0.1", "--init-spectrum-power", "0"]
    command = ["compare", str(store.path), "--objectives", *names, *arguments, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["label"] for entry in results["objectives"].values()] == ["InfoNCE", "GCCA", "Kernel GCCA", "Ridge"]
    assert results["objectives"]["gcca"]["settings"]["init"] == "gcca"
    assert "objective" not in results["objectives"]["gcca"]["settings"]
    runs = {(run["objective"], run["seed"]): run for run in results["runs"]}
    assert "closed_form" not in runs["infonce", 0]
    for name in names[1:]:
        assert runs[name, 0]["metrics"] == runs[name, 1]["metrics"]
        assert runs[name, 0]["closed_form"]["rows"] == 21
        assert runs[name, 0]["seconds"] > 0
    assert "Kernel GCCA" in (tmp_path / "out" / "report.html").read_text("utf-8")
    file = CompareConfig.read(tmp_path / "out" / "config.yaml")
    again = repeated_comparison(file, file.data, ["gcca", "infonce"], {"epochs": 3, "lr": 0.5, "dim": 4}, {})
    assert (again.entries["gcca"].train.epochs, again.entries["gcca"].train.dim) == (0, 4)
    assert again.entries["infonce"].train.epochs == 3
    assert (
        yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["entries"]["ridge"]["train"]["init"] == "ridge"
    )
    assert new_comparison(file.data, ["ridge"], {}, {}).entries["ridge"].train.dim == 256


def test_the_note_states_the_source_of_chosen_settings() -> None:
    for settings, split, expected in (
        ({"init_regularization": 0.1, "init_spectrum_power": 0.0}, True, ""),
        ({"init_regularization": 0.1}, True, "; source of the settings: validation split"),
        ({}, False, "; source of the settings: random 15% of the training rows, by groups"),
    ):
        train = closed_form_config("gcca", {"dim": 8, **settings})
        store = store_with_validation() if split else tiny_store()
        space = run(store, train).space
        record = SimpleNamespace(closed_form=space.metadata["closed_form"])
        assert _note(make_entry(train), record) == f"closed form, not trained{expected}"  # type: ignore[arg-type]


def test_an_unknown_name_is_corrected_to_a_closed_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", "digits", "--objectives", "kernel_gca", "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'kernel_gcca'" in capsys.readouterr().err
