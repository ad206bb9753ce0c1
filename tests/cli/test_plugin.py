"""Test the commands with the example plug-in installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from processes import run_command

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
QUICK = ["--epochs", "2", "--dim", "8", "--batch-size", "16", "--head", "linear", "--logging-steps", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")
    pip = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
    ]
    subprocess.run([sys.executable, "-m", "pip", *pip, folder / "site", folder / "source"], check=True)
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(60, 5))
    for name, dim in (("image", 7), ("text", 6)):
        values = (shared @ draw.normal(size=(5, dim))).astype("<f4")
        np.hstack([np.full((60, 1), dim, "<i4").view("<f4"), values]).tofile(folder / f"{name}.fvecs")
    return folder


def unialign(place, *words, plugin=True, status=0):
    found, printed = run_command(list(words), place, {"PYTHONPATH": str(place / "site")} if plugin else {})
    assert found == status, printed
    return printed


def test_an_objective_a_metric_and_a_reader_of_a_package(place):
    assert "hardest_negative" in unialign(place, "train", "--help")
    train = ["train", "image.fvecs", "text.fvecs", "--objective", "hardest_negative", *QUICK]
    printed = unialign(place, *train, "--set", "objective_options.margin=0.3")
    assert "random: 70 % train" in printed
    results = json.loads((place / "runs/train/results.json").read_text())
    assert results["objectives"]["hardest_negative"]["settings"]["objective_options"] == {"margin": 0.3}
    assert -2 <= results["runs"][0]["metrics"]["cosine_margin"] <= 2
    assert results["metrics"]["cosine_margin"]["primary"] is False
    assert "cosine margin" in (place / "runs/train/report.html").read_text()
    # Repeating the command loads the finished run; with other files, the command raises an error.
    unialign(place, *train, "--set", "objective_options.margin=0.3")
    shutil.copy(place / "image.fvecs", place / "sound.fvecs")
    assert "was created from other files" in unialign(place, "train", "sound.fvecs", *train[2:], status=2)
    printed = unialign(place, "evaluate", "runs/train/space", "image.fvecs", "text.fvecs", "--out", "runs/all")
    assert "items are evaluated" in printed  # The files contain no split.
    unialign(place, "evaluate", "runs/train/space", "runs/train/data")
    evaluated = json.loads((place / "runs/evaluate/results.json").read_text())
    assert evaluated["runs"][0]["metrics"] == results["runs"][0]["metrics"]
    # If the plug-in is not installed, the error names the unknown objective.
    again = ["train", "--config", "runs/train/config.yaml", "--out", "runs/again"]
    assert "unknown objective 'hardest_negative'" in unialign(place, *again, plugin=False, status=2)
    unialign(place, *again)
    assert json.loads((place / "runs/again/results.json").read_text())["summary"] == results["summary"]


def test_worker_processes_and_a_resumed_comparison(place):
    compare = ["compare", "image.fvecs", "text.fvecs", "--objectives", "hardest_negative", "infonce", "--seeds", "0"]
    unialign(place, *compare, *QUICK, "--workers", "2")
    first = json.loads((place / "runs/compare/results.json").read_text())
    assert {record["metric"] for record in first["comparisons"]} >= {"cosine_margin", "recall@1"}
    assert all("p_holm" not in record for record in first["comparisons"] if record["metric"] == "cosine_margin")
    run = place / "runs/compare/runs/hardest_negative-seed0"
    shutil.rmtree(run / "space")
    unialign(place, *compare, *QUICK, "--workers", "1")
    assert json.loads((place / "runs/compare/results.json").read_text())["summary"] == first["summary"]
    assert (run / "space").exists()


def test_other_commands_read_the_format_too(place):
    assert "2 modalities" in unialign(place, "diagnose", "image.fvecs", "text.fvecs", "--resamples", "100")
    (place / "torn.fvecs").write_bytes(b"\4\0\0\0 torn")
    assert "not a file of float32 vectors" in unialign(place, "diagnose", "torn.fvecs", status=2)
