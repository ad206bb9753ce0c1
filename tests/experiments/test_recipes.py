"""Test that the demo uses the best settings of the stored tuning log."""

import importlib.util
import json
from pathlib import Path

import pytest

import unialign as ua
from unialign.errors import ConfigError
from unialign.experiments import CompareConfig, recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


OBJECTIVES = ("unialign", "unialign_preset", "infonce", "gram")
CLOSED_FORMS = ("gcca", "kernel_gcca", "ridge")
TRIALS = {path.stem: path for path in sorted((BENCHMARKS / "tuning").glob("*.jsonl"))}


@pytest.fixture(scope="module", params=TRIALS)
def data(request):
    return request.param


@pytest.fixture(scope="module")
def trials(data):
    return [json.loads(line) for line in TRIALS[data].read_text("utf-8").splitlines()]


def test_every_recipe_has_a_tuning_log():
    assert "emoji" in TRIALS
    assert [recipe(name).data for name in TRIALS] == list(TRIALS)


def test_every_objective_had_the_same_budget(trials, data):
    counts = {}
    for trial in trials:
        counts.setdefault(trial["objective"], []).append(len(trial["per_seed"]))
    assert set(counts) == {*OBJECTIVES, *CLOSED_FORMS}
    assert len({tuple(counts[name]) for name in OBJECTIVES}) == 1
    trained = [recipe(data).entries[name].train for name in OBJECTIVES]
    assert len({(train.epochs, train.batch_size, train.lr, train.head, train.dim) for train in trained}) == 1
    assert {recipe(data).entries[name].train.epochs for name in CLOSED_FORMS} == {0}


def test_the_recipe_is_the_best_trial_of_the_log(trials, data):
    for key, entry in recipe(data).entries.items():
        best = max((t for t in trials if t["objective"] == key), key=lambda t: t["metrics"]["recall@1"])
        settings = entry.train.to_dict()
        for name, value in best["settings"].items():
            head, _, option = name.partition(".")
            assert (settings[head][option] if option else settings[head]) == value, (key, name)


def test_all_objectives_start_at_the_kernel_gcca_of_the_recipe(data):
    entries = recipe(data).entries
    start = [(e.train.init_regularization, e.train.init_spectrum_power) for e in entries.values()]
    assert {start[list(entries).index(name)] for name in (*OBJECTIVES, "kernel_gcca")} == {start[0]}


def test_log_recipe_and_data_belong_together(trials, data):
    shipped = ua.data.load_dataset(data).fingerprint
    assert {trial["fingerprint"] for trial in trials} == {shipped}
    assert recipe(data).fingerprint == shipped
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


@pytest.mark.parametrize("name", ["emoji", "digits"])
def test_pages_print_the_tables_of_the_kept_results(name):
    spec = importlib.util.spec_from_file_location("readme", BENCHMARKS / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept, page = module.KEPT[name]
    results = json.loads(kept.read_text("utf-8"))
    assert module.block(results) in page.read_text("utf-8")
    assert results["data"]["fingerprint"] == recipe(name).fingerprint
    for key, entry in recipe(name).entries.items():
        settings, own = results["objectives"][key]["settings"], entry.train.to_dict()
        assert {option: own[option] for option in settings} == settings
