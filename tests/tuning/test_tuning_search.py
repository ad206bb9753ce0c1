"""Test that a search ends with the same trials after an interruption, and that no trial reads a test row."""

import json
from pathlib import Path

import pytest

import unialign as ua
from tuning_cases import lines, small_search, small_store
from unialign.cli import main
from unialign.config import CompareConfig
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.report import write_tuning_report
from unialign.tuning import Trial, TuneResult
from unialign.tuning._search_store import write_search_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuning")
    small_store(path / "store")
    return path


@pytest.fixture(scope="module")
def found(folder: Path) -> TuneResult:
    """An uninterrupted search; tests must not change its folder."""
    return ua.tune(folder / "store", small_search(metric=("recall@1", "label_map")), out=folder / "whole")


def test_the_search_writes_what_it_promises(folder: Path, found: TuneResult) -> None:
    out = folder / "whole"
    results = json.loads((out / "results.json").read_text())
    assert [trial.number for trial in found.trials] == list(range(6))
    assert [trial.source for trial in found.trials[:3]] == ["shipped"] * 3
    assert results["chosen"] == results["candidates"][0]["number"]
    assert found.trials[results["chosen"]].train == found.config
    assert set(results["front"]) == set(found.front)
    default = next(one for one in results["candidates"] if one["number"] == 0)
    searched = [one for one in results["candidates"] if one["number"] != 0]
    assert results["candidates"][0]["score"] >= max(one["score"] for one in searched)
    assert results["candidates"][0]["settings"]["objective"] in ("infonce", "gcca")
    assert default["seeds"] == 2
    assert results["hypervolume"]["all"] >= results["hypervolume"]["shipped"]
    assert set(results["test"]["summary"]) == {"tuned", "default"}
    assert results["test"]["protocol"]["seeds"] == [2, 3]
    assert results["data"]["test_items"] == 20
    assert not (out / "search-data").exists()
    assert found.space.dim == 6
    assert ua.Space.from_pretrained(out / "space").modalities == found.space.modalities
    # The comparison reads the test split, and its configuration and that of the run are accepted by the commands.
    comparison = CompareConfig.read(out / "comparison" / "config.yaml")
    assert comparison.split == "test"
    assert comparison.entries["tuned"].train.objective == found.config.objective
    assert main(["train", "--config", str(out / "train.yaml"), "--out", str(folder / "again"), "--quiet"]) == 0
    again = json.loads((folder / "again" / "results.json").read_text())["runs"][0]["metrics"]["recall@1"]
    first = json.loads((out / "comparison" / "results.json").read_text())["runs"]
    run = next(run for run in first if run["objective"] == "tuned" and run["seed"] == 2)
    assert again == run["metrics"]["recall@1"]


def test_the_page_has_every_section_and_loads_nothing(folder: Path, found: TuneResult) -> None:
    text = write_tuning_report(folder / "whole").read_text("utf-8")
    for section in ("answer", "test", "trials", "methods"):
        assert f'id="{section}"' in text
    assert text.count('class="trial-') >= 6
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "read once" in text
    for trial in found.trials:
        assert f"{trial.number}: {trial.name}" in text


def test_a_search_that_is_interrupted_and_continued_has_the_same_trials(folder: Path, found: TuneResult) -> None:
    config, out = small_search(metric=("recall@1", "label_map")), folder / "stopped"

    def stop(trial: Trial) -> None:
        if trial.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ua.tune(folder / "store", config, out=out, on_trial=stop)
    assert len(lines(out)) == 4
    # A write that a kill interrupted leaves an incomplete last line.
    with open(out / "trials.jsonl", "ab") as file:
        file.write(b'{"number": 4, "seed')
    again = ua.tune(folder / "store", config, out=out)
    assert lines(out) == lines(folder / "whole")
    assert again.results["chosen"] == found.results["chosen"]
    assert again.results["test"]["summary"] == found.results["test"]["summary"]


def test_test_rows_do_not_affect_any_trial(folder: Path, found: TuneResult) -> None:
    other = small_store(shifted_test=5.0)
    config = small_search(metric=("recall@1", "label_map"))
    shifted = ua.tune(other, config, out=folder / "shifted")
    assert lines(folder / "shifted") == lines(folder / "whole")
    assert shifted.results["chosen"] == found.results["chosen"]
    assert shifted.results["test"]["summary"] != found.results["test"]["summary"]


def test_the_store_of_trials_has_no_test_rows(folder: Path, tmp_path: Path) -> None:
    store = EmbeddingStore.open(folder / "store")
    copy = write_search_store(store, tmp_path)
    assert copy.items == 80
    assert len(copy.rows("test")) == 0
    for split in ("train", "val"):
        for name in store.modalities:
            present = store.present(name)[store.rows(split)]
            assert (copy.present(name)[copy.rows(split)] == present).all()
            assert (copy.array(name)[copy.rows(split)] == store.array(name)[store.rows(split)])[present].all()
        assert (copy.labels[copy.rows(split)] == store.labels[store.rows(split)]).all()


@pytest.mark.slow
def test_more_trials_continue_the_search_and_count_the_tests(folder: Path, tmp_path: Path) -> None:
    few = small_search(trials=2, seeds=1, metric=("label_map",), objectives=("gcca", "kernel_gcca"))
    ua.tune(folder / "store", few, out=tmp_path)
    first = lines(tmp_path)
    more = ua.tune(folder / "store", few.replace(trials=8), out=tmp_path)
    assert {key: lines(tmp_path)[key] for key in first} == first
    assert len(more.trials) == 8
    looks = len(list(tmp_path.glob("comparison*")))
    assert len(more.results["test"]["earlier"]) == looks - 1
    with pytest.raises(ConfigError, match="top is 2 in the folder, but 3 was given"):
        ua.tune(folder / "store", few.replace(top=3), out=tmp_path)


@pytest.mark.slow
def test_a_search_by_optuna_continues_with_the_same_proposals(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    config = small_search(sampler="tpe", trials=17, lag=2, seeds=1, metric=("recall@1", "label_map"))

    def stop(trial: Trial) -> None:
        if trial.number == 14:
            raise KeyboardInterrupt

    ua.tune(folder / "store", config, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ua.tune(folder / "store", config, out=tmp_path / "stopped", on_trial=stop)
    ua.tune(folder / "store", config, out=tmp_path / "stopped")
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    assert lines(tmp_path / "whole")[16, 0]["source"] == "tpe"


def test_errors_name_the_cause(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'recall@1'"):
        ua.tune(folder / "store", small_search(metric=("recall1",)), out=tmp_path / "a")
    with pytest.raises(DataError, match="'label_map' is undefined"):
        ua.tune(small_store(labels=False), small_search(metric=("label_map",)), out=tmp_path / "b")
    # Without trials, the folder may be used for another search.
    with pytest.raises(DataError, match="'v_measure' is undefined"):
        ua.tune(small_store(labels=False), small_search(metric=("v_measure",)), out=tmp_path / "b")
    store = small_store()
    options = {"present": {name: store.present(name) for name in store.modalities}}
    columns = {name: store.array(name) for name in store.modalities}
    without = EmbeddingStore.from_arrays(columns, split=["train"] * 80 + ["test"] * 20, **options)
    with pytest.raises(ConfigError, match="needs a validation split"):
        ua.tune(without, small_search(), out=tmp_path / "c")
    without = EmbeddingStore.from_arrays(columns, split=["train"] * 80 + ["val"] * 20, **options)
    with pytest.raises(DataError, match="test split"):
        ua.tune(without, small_search(), out=tmp_path / "d")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "trials.jsonl").write_text("[1]\n")
    with pytest.raises(ConfigError, match=r"config\.yaml is missing"):
        ua.tune(folder / "store", small_search(), out=tmp_path / "e")
