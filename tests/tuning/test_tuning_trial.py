"""Test single trials: their metrics, early evaluations, pruning and failures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tuning_cases import small_store
from unialign.config import TrainConfig
from unialign.errors import DataError
from unialign.evaluation import evaluate
from unialign.train import fit
from unialign.tuning import Trial
from unialign.tuning._journal import append_trial, read_trials
from unialign.tuning._run_trial import TrialJob, run_trial
from unialign.tuning._scores import Goal

GOAL = Goal(("recall@1",), items=20)
TRAIN = TrainConfig(
    objective="infonce", head="linear", dim=6, epochs=4, batch_size=32, lr=0.01, objective_options={"anchor": "all"}
)


def trial(**changes: object) -> Trial:
    return Trial(3, 1, "random", "infonce, linear", {"lr": 0.01}, TRAIN.replace(**changes))


def test_a_trial_measures_what_evaluate_measures_on_the_validation_split() -> None:
    store = small_store()
    found = run_trial(store, trial(), GOAL, {})
    expected = evaluate(store, fit(store, TRAIN.replace(seed=1), progress="none").space, split="val").metrics
    for name in ("recall@1", "joint_recall@1", "label_map"):
        assert found.metrics[name] == pytest.approx(expected[name], rel=1e-12)
    assert found.state == "complete"
    assert list(found.early) == ["0.25", "0.5"]
    assert found.early["0.25"] != found.metrics


def test_a_hopeless_trial_ends_after_a_quarter_and_the_random_state_stays() -> None:
    store = small_store()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = run_trial(store, trial(), GOAL, {"0.25": (math.inf,)})
    assert (torch.rand(3) == expected).all()
    assert found.state == "pruned"
    assert list(found.early) == ["0.25"]
    assert found.metrics == found.early["0.25"]
    assert "25 %" in found.message
    later = run_trial(store, trial(), GOAL, {"0.25": (-math.inf,), "0.5": (math.inf,)})
    assert list(later.early) == ["0.25", "0.5"]
    assert later.early["0.25"] == found.metrics


def test_closed_forms_have_no_early_evaluation() -> None:
    form = trial(init="gcca", epochs=0, init_regularization=0.1, init_spectrum_power=0.0)
    found = run_trial(small_store(), form, GOAL, {"0.25": (math.inf,)})
    assert found.state == "complete"
    assert not found.early


def test_weights_that_are_not_finite_are_a_failed_trial() -> None:
    found = run_trial(small_store(), trial(lr=1e38, max_grad_norm=None, epochs=20), GOAL, {})
    assert found.state == "failed"
    assert not found.metrics
    assert found.message


def test_a_trial_on_data_with_test_rows_raises(tmp_path: Path) -> None:
    small_store(tmp_path / "store")
    job = TrialJob(trial(), str(tmp_path / "store"), GOAL, {}, 1, "cpu")
    with pytest.raises(DataError, match="has test rows"):
        job.run()


def test_lines_keep_trials_and_damaged_lines_are_named(tmp_path: Path) -> None:
    done = replace(trial(), metrics={"recall@1": 0.25, "label_map": math.nan}, seconds=1.5)
    append_trial(tmp_path, done)
    append_trial(tmp_path, replace(done, number=4))
    (found, other) = read_trials(tmp_path)
    assert found.train == done.train
    assert found.metrics["recall@1"] == 0.25
    assert math.isnan(found.metrics["label_map"])
    assert other.number == 4
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert [one.number for one in read_trials(tmp_path)] == [3]
    assert path.read_bytes().count(b"\n") == 1
    append_trial(tmp_path, replace(done, number=4))
    assert [one.number for one in read_trials(tmp_path)] == [3, 4]
    append_trial(tmp_path, done)
    with pytest.raises(DataError, match="line 3 repeats trial 3 with seed 1"):
        read_trials(tmp_path)
    path.write_text(json.dumps({"number": 1}) + "\n")
    with pytest.raises(DataError, match=r"line 1: .*not a trial"):
        read_trials(tmp_path)
