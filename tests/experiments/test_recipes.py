"""Test that the demo uses the best settings of the stored tuning log."""

import importlib.util
import json
from pathlib import Path

import pytest

import unialign as ua
from unialign.errors import ConfigError
from unialign.experiments import CompareConfig, recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def trials():
    lines = (BENCHMARKS / "tuning" / "emoji.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_objective_had_the_same_budget(trials):
    counts = {}
    for trial in trials:
        counts.setdefault(trial["objective"], []).append(len(trial["per_seed"]))
    assert set(counts) == {"unialign", "infonce", "gram"}
    assert len({tuple(seeds) for seeds in counts.values()}) == 1
    steps = {(entry.train.epochs, entry.train.batch_size) for entry in recipe("emoji").entries.values()}
    assert len(steps) == 1  # the steps include the InfoNCE warmup


def test_the_recipe_is_the_best_trial_of_the_log(trials):
    for key, entry in recipe("emoji").entries.items():
        best = max((t for t in trials if t["objective"] == key), key=lambda t: t["recall@1"])
        settings = entry.train.to_dict()
        for name, value in best["settings"].items():
            head, _, option = name.partition(".")
            assert (settings[head][option] if option else settings[head]) == value, (key, name)


def test_log_recipe_and_data_belong_together(trials):
    shipped = ua.data.load_dataset("emoji").fingerprint
    assert {trial["fingerprint"] for trial in trials} == {shipped}
    assert recipe("emoji").fingerprint == shipped
    assert not {trial["environment"]["torch"] for trial in trials} - {trials[0]["environment"]["torch"]}


def test_demo_seeds_were_not_tuned_on():
    source = (BENCHMARKS / "tune.py").read_text("utf-8")
    assert "SEEDS = (100, 101)" in source
    assert not set(recipe("emoji").seeds) & {100, 101}


def test_recipe_round_trip_and_unknown_name():
    config = recipe("emoji")
    assert CompareConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="emoji"):
        recipe("tuxpaint")


def test_the_readme_prints_the_table_of_the_kept_results():
    spec = importlib.util.spec_from_file_location("readme", BENCHMARKS / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = json.loads((BENCHMARKS / "results" / "demo.json").read_text("utf-8"))
    assert module.block(results) in (BENCHMARKS.parent / "README.md").read_text("utf-8")
    assert results["data"]["fingerprint"] == recipe("emoji").fingerprint
    for key, entry in recipe("emoji").entries.items():
        assert results["objectives"][key]["settings"]["lr"] == entry.train.lr
