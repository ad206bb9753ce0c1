"""Test the plan, budgets, splits, interruption, stored results and page of a study."""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_cases import SMALL, TEST, options, plan, timeless, write_store

from research import _run as study_module, _worker as work_module
from research._jobs import TrainingJob
from research._plan import Arm, Options, Plan, Study
from research._records import Record, read_record
from research._run import Progress, make_plan, run_study
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.experiments import evaluate_split
from unialign.report import text_table
from unialign.report._schema import parse_results
from unialign.space import Space


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("data") / "store")


@dataclass
class Observed:
    progress: list[Progress] = field(default_factory=list)
    evaluated: set[tuple[str, str]] = field(default_factory=set)
    begun: list[tuple[str, int, bool, bool]] = field(default_factory=list)


@pytest.fixture(scope="module")
def observed() -> Observed:
    return Observed()


@pytest.fixture(scope="module")
def finished(store: str, tmp_path_factory: pytest.TempPathFactory, observed: Observed) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the results of a finished study, which tests must not change."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    whole, train = work_module._train_and_measure, work_module.fit
    current: list[str] = []

    def spied_job(job: TrainingJob, data: EmbeddingStore) -> Record:
        current.append(job.purpose)
        return whole(job, data)

    def spied_evaluate(embeddings: Any, data: Any, split: str, **more: Any) -> Any:
        observed.evaluated.add((current[-1], split))
        return evaluate_split(embeddings, data, split, **more)

    def spied_fit(data: Any, config: Any, **more: Any) -> Any:
        start, seed = more["init_from"], config.seed
        if start is not None:
            parents = [Space.from_pretrained(f) for f in (folder / "spaces").glob(f"*-seed{seed}")]
            same = [
                all(torch.equal(a, b) for a, b in zip(start.parameters(), p.parameters(), strict=True)) for p in parents
            ]
            own = start.metadata["training"]["seed"] == seed
            observed.begun.append((config.objective, seed, any(same), own))
        return train(data, config, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_module, "_train_and_measure", spied_job)
        patch.setattr(work_module, "evaluate_split", spied_evaluate)
        patch.setattr(work_module, "fit", spied_fit)
        results = run_study(SMALL, options(store), folder, on_done=observed.progress.append)
    return folder, results


def test_results_extend_those_of_a_comparison(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    stored = json.loads((folder / "results.json").read_text())
    assert stored == results
    parsed = parse_results(stored)
    assert len(parsed.runs) == 6 * 2
    assert "ours" in text_table(stored)
    assert results["data"]["test_items"] == TEST
    assert results["study"]["analysis"] == {"arms": 6, "nothing": None}
    for arm in ("ours", "holes", "order"):
        low, mean, high = (results["summary"][arm]["recall@1"][k] for k in ("low", "mean", "high"))
        assert 0 <= low <= mean <= high <= 1.2
        points = [run["metrics"]["recall@1"] for run in results["runs"] if run["objective"] == arm]
        assert mean == pytest.approx(sum(points) / 2)
    assert {c["baseline"] for c in results["comparisons"]} == {"baseline", "on", "holes"}
    family = [c for c in results["comparisons"] if "verdict" in c]
    assert len(family) == 3 * 5
    assert all(c["p_holm"] >= c["p"] for c in family)


def test_evaluations_begin_before_training_and_end_with_the_metrics(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    run = next(run for run in results["runs"] if run["objective"] == "ours")
    assert [evaluation["step"] for evaluation in run["evaluations"]] == [0, 1, 4] == [0, 1, run["steps"]]
    assert run["evaluations"][-1]["conflict/zeta"] == pytest.approx(run["metrics"]["zeta"], abs=1e-6)
    assert run["metrics"]["conflict/chi"] == run["evaluations"][-1]["conflict/chi"]
    own = results["summary"]["ours"]["conflict/zeta_neg_tan"]
    assert own["low"] < own["mean"] < own["high"]


def test_every_tuned_arm_has_the_same_budget_and_the_best_trial_wins(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    tuning = results["study"]["tuning"]
    assert {arm: len(t["trials"]) for arm, t in tuning.items() if "trials" in t} == {"ours": 2, "baseline": 2, "on": 2}
    assert tuning["holes"] == {"as": "ours"}
    for arm in ("ours", "baseline", "on"):
        scores = [trial["recall@1"] for trial in tuning[arm]["trials"]]
        assert scores[tuning[arm]["chosen"]] == max(scores)
        chosen = tuning[arm]["trials"][tuning[arm]["chosen"]]["settings"]["objective_options.temperature"]
        assert results["objectives"][arm]["settings"]["objective_options"]["temperature"] == chosen
    assert len(list((folder / "tuning").iterdir())) == 6
    assert results["study"]["trainings"] == len(list((folder / "runs").iterdir())) + 6


@pytest.mark.usefixtures("finished")
def test_the_number_of_trainings_is_known_beforehand(observed: Observed) -> None:
    assert [p.done for p in observed.progress] == list(range(1, 20))
    assert {p.total for p in observed.progress} == {19}
    assert [p.job.purpose for p in observed.progress].count("parent") == 1


def test_modalities_may_depend_on_the_seed(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    runs = {run["seed"]: run for run in results["runs"] if run["objective"] == "order"}
    assert runs[0]["modalities"] == ["text", "image"]
    assert runs[1]["modalities"] == ["text", "audio"]
    assert set(runs[1]["directions"]) == {"text->audio", "audio->text"}


@pytest.mark.usefixtures("finished")
def test_a_continued_arm_begins_with_the_space_of_its_own_seed(observed: Observed) -> None:
    assert {(objective, seed) for objective, seed, _, _ in observed.begun} == {("unialign", s) for s in (0, 1, 100)}
    assert len(observed.begun) == 2 + 2 + 2
    assert all(same and own for _, _, same, own in observed.begun)


@pytest.mark.usefixtures("finished")
def test_only_runs_are_evaluated_on_test_rows(observed: Observed) -> None:
    assert observed.evaluated == {("trial", "val"), ("parent", "val"), ("run", "test")}


def test_the_test_split_does_not_affect_tuning(
    store: str, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    """Data sets that differ only in their test rows must give the same tuning results."""
    other = write_store(tmp_path / "other", test=5.0)
    results = run_study(SMALL, options(other, seeds=(0,)), tmp_path / "run")
    assert results["study"]["tuning"] == finished[1]["study"]["tuning"]
    assert results["runs"][0]["metrics"]["recall@1"] != finished[1]["runs"][0]["metrics"]["recall@1"]


# --- interruption ---------------------------------------------------------------------------------------------------


def test_an_interrupted_study_continues(
    tmp_path: Path, finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that is interrupted three times gives the same results as an uninterrupted study."""
    folder, results = finished
    settings = Options.read(folder / "config.yaml")
    assert len(settings.fingerprints["tiny"]) == 64
    worked: list[str] = []
    train = study_module.work
    monkeypatch.setattr(study_module, "work", lambda job: (worked.append(job.file.name), train(job))[1])
    for stop in (1, 8, 18):

        def interrupt(progress: Progress, stop: int = stop) -> None:
            if progress.done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_study(SMALL, settings, tmp_path / "run", on_done=interrupt)
        assert len(worked) == stop
    read_back: list[bool] = []
    again = run_study(SMALL, settings, tmp_path / "run", on_done=lambda p: read_back.append(p.read_back))
    assert read_back.count(True) == 18
    assert len(set(worked)) == len(worked) == 19
    assert timeless(again) == timeless(results)


def test_a_finished_study_is_read_back_and_its_page_rewritten(
    finished: tuple[Path, dict[str, Any]], store: str
) -> None:
    folder, results = finished
    before = (folder / "page.md").read_text()
    (folder / "report.html").unlink()
    read_back: list[bool] = []
    again = run_study(SMALL, options(store), folder, on_done=lambda p: read_back.append(p.read_back))
    assert all(read_back)
    assert timeless(again) == timeless(results)
    assert (folder / "page.md").read_text() == before
    assert (folder / "report.html").exists()


def test_worker_processes_give_the_same_numbers(
    store: str, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    """Only one arm is tested, since a pool of processes starts slowly."""
    short = Study(name="small", title="", plan=lambda o: Plan(arms=plan(o).arms[-1:]), page=lambda results: [])
    results = run_study(short, options(store), tmp_path / "run", workers=2)
    expected = {(r["objective"], r["seed"]): r["metrics"] for r in finished[1]["runs"]}
    for run in results["runs"]:
        for name, value in run["metrics"].items():
            assert value == pytest.approx(expected[run["objective"], run["seed"]][name], abs=1e-5), name


def test_a_folder_belongs_to_one_study(finished: tuple[Path, dict[str, Any]], store: str) -> None:
    for changes in ({"epochs": 1}, {"seeds": (0,)}, {"resamples": 700}):
        with pytest.raises(ConfigError, match="another study"):
            run_study(SMALL, options(store, **changes), finished[0])


def test_records_are_read_under_their_own_settings_only(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    shutil.copyfile(finished[0] / "runs" / "ours-seed0.safetensors", file)
    with pytest.raises(DataError, match=r"has other settings \(.*train differ"):
        read_record(file, {"train": {}})
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="not a valid record of a study"):
        read_record(file, {})
    file.write_bytes(b"")
    with pytest.raises(DataError, match="delete the file"):
        read_record(file, {})
    assert read_record(tmp_path / "none", {}) is None


def test_another_revision_of_the_data_raises(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    again = Options.read(finished[0] / "config.yaml")
    other = write_store(tmp_path / "other", test=1.0)
    with pytest.raises(DataError, match="use the expected revision"):
        run_study(SMALL, again.replace(stores={"tiny": other}), finished[0])


# --- failures ----------------------------------------------------------------------------------------------------


def test_a_failed_arm_is_reported_and_the_others_are_kept(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = work_module.fit

    def break_some(data: Any, config: Any, **more: Any) -> Any:
        chosen = config.objective_options.get("temperature")
        if config.objective == "infonce" and config.seed == 1 and len(config.modalities) == 3:
            raise NonFiniteError("the loss is not finite")
        if config.objective == "unialign" and config.seed == 100 and chosen == 0.05:
            raise NonFiniteError("a gradient is not finite")
        return train(data, config, **more)

    monkeypatch.setattr(work_module, "fit", break_some)
    short = Study(
        name="small",
        title="",
        plan=lambda o: Plan(arms=plan(o).arms[:3], families=(*plan(o).families,)[:0]),
        page=lambda results: SMALL.page(
            {**results, "study": {**results["study"], "families": [{"name": "all", "first": "ours", "baselines": []}]}}
        ),
    )
    results = run_study(short, options(store), tmp_path / "run")
    assert results["study"]["failed"] == {"baseline": "seed 1: the loss is not finite"}
    assert set(results["summary"]) == {"ours", "holes"}
    trials = results["study"]["tuning"]["ours"]
    assert trials["chosen"] == 1
    assert trials["trials"][0]["failed"] == "a gradient is not finite"
    assert trials["trials"][0]["recall@1"] is None
    assert "| baseline" not in (tmp_path / "run" / "page.md").read_text().split("Tuning")[0]


def test_an_arm_whose_trials_all_fail_stops_the_study(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: Any, config: Any, **more: Any) -> Any:
        raise NonFiniteError("'text', row 3")

    monkeypatch.setattr(work_module, "fit", broken)
    with pytest.raises(DataError, match=r"all 2 trials of 'ours' failed; error of the first trial: 'text', row 3"):
        run_study(SMALL, options(store), tmp_path / "run")


def changed(**changes: Any) -> Study:
    def altered(chosen: Options) -> Plan:
        first, *rest = plan(chosen).arms
        return dataclasses.replace(plan(chosen), arms=(dataclasses.replace(first, **changes), *rest))

    return dataclasses.replace(SMALL, plan=altered)


PLANS: list[tuple[dict[str, Any], str]] = [
    ({"trials": ({"lr": 0.1},)}, "must have the same number of trials"),
    ({"trials": ({"lr": -1}, {"lr": 0.1})}, r"arm 'ours' with \{'lr': -1\}"),
    ({"trials": ({"dip": 1}, {"lr": 0.1})}, "unknown training setting 'dip'"),
    ({"key": "../ours"}, "must be a file name"),
    ({"key": "baseline"}, "keys must be unique"),
    ({"tuned_as": "baseline"}, "has both trials and tuned_as"),
    ({"trials": (), "tuned_as": "order"}, "unknown tuned_as of arm 'ours' 'order'"),
    ({"init_from": "ours"}, "is circular"),
    ({"init_from": "none"}, "unknown init_from of arm 'ours' 'none'"),
    ({"anchor": None, "eval_hook": None, "per_seed": {0: {"modalities": ["text", "smell"]}}}, "'smell'"),
]


def test_invalid_plans_raise(store: str) -> None:
    for changes, message in PLANS:
        with pytest.raises(ConfigError, match=message):
            make_plan(changed(**changes), options(store))


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"resamples": 599}, "resamples must be at least 600 for the 3 baselines"),
    ({"seeds": (0, 100)}, "seed 100 is in both seeds and tuning_seeds"),
    ({"seeds": ()}, "one or more distinct integers"),
    ({"seeds": (1, 1)}, "one or more distinct integers"),
    ({"seeds": (-1,)}, "at least 0"),
    ({"epochs": 0}, "epochs must be an integer of at least 1"),
    ({"stores": ["a"]}, "stores must be a mapping"),
    ({"stores": {"a": 1}}, "stores must map"),
]


def test_options_out_of_range_raise(store: str) -> None:
    for changes, message in OPTIONS:
        with pytest.raises(ConfigError, match=message):
            make_plan(SMALL, options(store, **changes))


def test_options_of_another_study_or_kind_raise(store: str) -> None:
    with pytest.raises(ConfigError, match="not to 'small'"):
        make_plan(SMALL, options(store, study="ablation"))
    with pytest.raises(ConfigError, match="unknown study setting 'epoch'; did you mean 'epochs'"):
        Options.from_dict({"study": "small", "epoch": 1})
    with pytest.raises(ConfigError, match="needs 'study'"):
        Options.from_dict({"epochs": 1})


def test_arms_on_other_modalities_are_not_compared(store: str) -> None:
    arms = plan(options(store)).arms
    rest = Arm(**{**vars(arms[1]), "train": arms[1].config(0, {"modalities": ["image", "text"]})})
    other = Study(
        name="small",
        title="",
        plan=lambda o: Plan(arms=(arms[0], rest), families=(type(plan(o).families[0])("f", "ours", ("baseline",)),)),
        page=lambda results: [],
    )
    with pytest.raises(ConfigError, match="differ in modalities or data"):
        make_plan(other, options(store))


def test_data_without_a_validation_split_cannot_tune(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=(9, 4)) for name in ("image", "text", "audio")}
    EmbeddingStore.write(tmp_path / "flat", columns, split=[0] * 6 + [2] * 3)
    with pytest.raises(DataError, match="0 items in its val split"):
        make_plan(SMALL, options(str(tmp_path / "flat")))
