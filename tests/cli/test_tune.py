"""Test `unialign tune` and `unialign compare --tune`."""

import json
from pathlib import Path

import pytest
import yaml

from tuning_cases import small_store
from unialign.cli import main

FIXED = ["--dim", "6", "--epochs", "2", "--batch-size", "32", "--init-regularization", "0.1"]
FIXED += ["--init-spectrum-power", "0"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_prints_trials_and_answer_and_repeats_from_its_configuration(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = [
        "--trials",
        "4",
        "--objectives",
        "gcca",
        "ridge",
        "--top",
        "1",
        "--metric",
        "recall@1,label_map",
        "--seeds",
        "1",
    ]
    command = ["tune", "store", *search, *FIXED, "--resamples", "400", "--workers", "1"]
    assert main([*command, "--out", "one"]) == 0
    said = capsys.readouterr().out
    assert "[3] " in said
    assert "was chosen from 4 trials" in said
    assert "On 20 test items, read once" in said
    settings = yaml.safe_load((here / "one" / "config.yaml").read_text())
    assert settings["data"]["path"] == "store"
    assert settings["search"]["fixed"]["dim"] == 6
    again = ["tune", "--config", "one/config.yaml", "--workers", "1", "--out", "two", "--quiet"]
    assert main(again) == 0
    first, second = (json.loads((here / name / "results.json").read_text()) for name in ("one", "two"))
    assert first["chosen"] == second["chosen"]
    assert [trial["metrics"] for trial in first["trials"]] == [trial["metrics"] for trial in second["trials"]]
    assert 'id="answer"' in (here / "one" / "report.html").read_text("utf-8")
    # The same command again reads everything back.
    assert main([*command, "--out", "one", "--quiet"]) == 0
    assert main([*command, "--top", "2", "--out", "one"]) == 2
    assert "top is 1 in the folder, but 2 was given; choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_comparison_gives_every_objective_the_same_number_of_trials(here: Path) -> None:
    command = ["compare", "store", "--objectives", "infonce", "gcca", "--tune", "3", *FIXED, "--seeds", "0", "1"]
    assert main([*command, "--resamples", "400", "--workers", "1", "--out", "c", "--quiet"]) == 0
    for name in ("infonce", "gcca"):
        text = (here / "c" / "tuning" / name / "trials.jsonl").read_text("utf-8")
        trials = [json.loads(line) for line in text.splitlines()]
        assert {trial["number"] for trial in trials} == {0, 1, 2}
        assert {(trial["train"]["epochs"] == 0) for trial in trials} == {name == "gcca"}
        assert min(trial["seed"] for trial in trials) == 2
    results = json.loads((here / "c" / "results.json").read_text("utf-8"))
    assert results["protocol"]["selection"].startswith("3 trials")
    assert list(results["objectives"]) == ["infonce", "gcca"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune", "store", "--metric", "recall1"], "did you mean 'recall@1'"),
        (["tune", "store", "--metric", "zeta"], "better direction"),
        (["tune", "store", "--trials", "0"], "trials must be an integer of at least 1"),
        (["tune", "store", "--objectives", "gramm"], "did you mean 'gram'"),
        (["tune"], "no data is given"),
        (["tune", "stor"], "neither a data set"),
        (["tune", "store", "--lr", "-1"], "lr must be"),
        (["tune", "store", "--workers", "0"], "--workers must be at least 1"),
        (["compare", "store", "--tune", "0"], "--tune must be"),
        (["compare", "store", "--tune", "2", "--anchor", "image"], "omit it"),
    ],
)
def test_errors(here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
