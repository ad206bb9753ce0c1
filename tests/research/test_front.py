"""Test the study of whole fronts: splits without test rows, equal trials, measures, the loop, and a smoke run."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_cases import write_store

from research import PARTED, _front_jobs as jobs_module, _front_plan as plan_module, front, load_page
from research.__main__ import main
from research._front_data import DATA, development_store, missing_data, open_data
from research._front_jobs import SHARES, VARIANTS, FrontJob, work
from research._front_loop import interpolated, mean_weights, train_heads
from research._front_measures import (
    METRICS,
    difference,
    hypervolume,
    log_score,
    measure_mechanism,
    non_dominated,
    with_interval,
)
from research._front_objectives import ENTRIES, RECIPES, missing_options, trial_settings
from research._front_plan import FrontOptions, FrontPlan
from research._front_regimes import regimes_of
from research._front_results import write_results
from research._front_transforms import changed
from research._plan import DataTransform
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.errors import DataError, NonFiniteError
from unialign.train import fit

# Three modalities, since the time of an evaluation grows with the number of pairs.
NAME = "tuxpaint3"
STORE = DATA[NAME].modalities


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("front") / "store", STORE, name=NAME, dim=8)


@pytest.fixture
def store(folder: str) -> EmbeddingStore:
    return open_data(NAME, {NAME: folder})


def test_development_splits_contain_no_test_row_and_do_not_divide_groups(store: EmbeddingStore) -> None:
    test_rows = {row.tobytes() for row in store.array("text")[store.rows("test")]}
    for k in range(4):
        own = development_store(store, k)
        assert len(own.rows("test")) == 0
        assert own.items == len(store.rows("train")) + len(store.rows("val"))
        assert not test_rows & {row.tobytes() for row in own.array("text")}
        assert not set(own.groups[own.rows("train")]) & set(own.groups[own.rows("val")])
        assert len(own.rows("val")) == pytest.approx(own.items / 4, abs=1)
        inner = development_store(store, k, validation=True)
        assert np.array_equal(inner.rows("test"), own.rows("val")), "the same held-out rows"
        assert not test_rows & {row.tobytes() for row in inner.array("text")}
    assert not np.array_equal(development_store(store, 0).split, development_store(store, 1).split)


def test_missing_stores_name_the_commands_that_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert missing_data("digits", {}) == ""
    for name in ("tuxpaint8", "fillets", "molecules", "qabcs"):
        assert "; run " in missing_data(name, {})
    with pytest.raises(DataError, match="unialign data prepare molecules"):
        open_data("molecules", {})


def test_all_objectives_share_the_draws() -> None:
    for recipe, trial in itertools.product(RECIPES, range(1, 6)):
        drawn = {name: trial_settings(name, recipe, trial) for name in ENTRIES}
        assert len({settings["lr"] for settings in drawn.values()}) == 1
        low, high = RECIPES[recipe].lr
        assert low <= drawn["infonce"]["lr"] <= high
        taus = {name: s.get("objective_options.temperature") for name, s in drawn.items() if name != "gram"}
        assert len({tau for tau in taus.values() if tau is not None}) == 1
        assert drawn["sigmoid"]["objective_options.scale"] == pytest.approx(1 / taus["infonce"], rel=0.02)
    seen = {trial_settings("infonce", "kernel", trial)["lr"] for trial in range(1, 9)}
    assert len(seen) == 8
    assert "lr" not in trial_settings("infonce", "kernel", 0)
    soft = trial_settings("infonce", "kernel", 3, temperatures=(0.1, 0.5))
    assert 0.1 <= soft["objective_options.temperature"] <= 0.5


def test_hypervolume_counts_the_dominated_cells() -> None:
    rng = np.random.default_rng(0)
    for metrics in (1, 2, 3):
        for _ in range(5):
            points = rng.integers(-1, 8, size=(6, metrics)) / 6
            corners = itertools.product(range(6), repeat=metrics)
            covered = sum(
                any(all(p >= (c + 1) / 6 - 1e-9 for p, c in zip(q, at, strict=True)) for q in points) for at in corners
            )
            assert hypervolume(points.tolist()) == pytest.approx(covered / 6**metrics)
    assert hypervolume([[0.5, math.nan], [0.5, 0.5]]) == 0.25
    assert hypervolume([]) == 0.0
    assert non_dominated([(1, 2), (2, 1), (1, 1), (2, 1)]) == [0, 1, 3]


def test_intervals_of_paired_differences() -> None:
    rng = torch.Generator().manual_seed(0)
    base_SR = torch.randn(3, 4000, generator=rng, dtype=torch.float64)
    first = base_SR + 1.0 + 0.1 * torch.randn(3, 4000, generator=rng, dtype=torch.float64)
    found = difference((first, [1.0, 1.1, 0.9]), (base_SR, [0.0, 0.0, 0.0]))
    assert found["low"] < found["mean"] == pytest.approx(1.0)
    error = math.sqrt(0.1**2 / 3 + 0.1**2 / 3)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found["p"] < 1e-6
    one = difference((first, [1.0, 1.1, 0.9]), (base_SR[:1], [0.0]))
    assert one["mean"] == pytest.approx(1.0)
    near = with_interval(torch.randn(1, 4000, generator=rng, dtype=torch.float64) + 1.0, [1.0])
    assert near["p"] == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=0.03)
    assert log_score({"recall@1": 0.1, "joint_recall@1": math.nan}) == pytest.approx(math.log(0.1))
    assert math.isnan(log_score({}))


def test_measures_of_the_mechanism_equal_loops() -> None:
    rng = np.random.default_rng(1)
    z = {name: rng.normal(size=(12, 5)) for name in "ab"}
    z = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in z.items()}
    present = {"a": torch.arange(12) != 3, "b": torch.ones(12, dtype=torch.bool)}
    found = measure_mechanism({name: torch.from_numpy(x) for name, x in z.items()}, present, anchor="a")
    rows = [i for i in range(12) if i != 3]
    true = [float(z["a"][i] @ z["b"][i]) for i in rows]
    false = [float(z["a"][i] @ z["b"][j]) for i in rows for j in rows if i != j]
    assert found["mechanism/pair_cosine"] == pytest.approx(np.mean(true))
    assert found["mechanism/spread"] == pytest.approx(np.std(false, ddof=1))
    assert found["mechanism/cosine_over_spread"] == pytest.approx(np.mean(true) / np.std(false, ddof=1))


def test_faults_change_training_rows_only(store: EmbeddingStore) -> None:
    others = np.flatnonzero(store.split != 0)
    wrong = changed(store, DataTransform("mispair", {"fraction": 0.5}), 0)
    for name in STORE:
        assert np.array_equal(wrong.array(name)[others], store.array(name)[others])
        moved = (wrong.array(name) != store.array(name)).any(1).sum()
        assert moved == round(0.5 * len(store.rows("train")))
    thin = changed(store, DataTransform("rare_modalities", {"fraction": 0.25}), 0)
    kept, thinned = STORE[0], STORE[1]
    assert thin.present(kept).all()
    assert thin.present(thinned)[store.rows("train")].mean() < 0.6
    assert thin.present(thinned)[others].all()
    few = changed(store, DataTransform("rare_classes", {"fraction": 0.2}), 0)
    assert len(few.rows("test")) == len(store.rows("test"))
    counts = np.bincount(few.labels[few.rows("train")])
    assert counts.tolist() == [8, 2, 8]


# --- the loop -------------------------------------------------------------------------------------------------------

CONFIG = TrainConfig(
    objective="infonce",
    modalities=STORE,
    head="kernel",
    init="gcca",
    init_regularization=0.01,
    init_spectrum_power=0.0,
    dim=6,
    epochs=3,
    batch_size=10,
    lr=0.01,
    weight_decay=0.0,
    save_steps=None,
    seed=4,
)


def weights(space: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in space.parameters()])


@pytest.mark.parametrize(("objective", "preset"), [("infonce", {}), ("unialign", {"preset": "classes"})])
def test_without_decay_the_loop_takes_the_steps_of_fit(
    store: EmbeddingStore, objective: str, preset: dict[str, str]
) -> None:
    config = CONFIG.override({"objective": objective, "objective_options": preset})
    start = fit(store, config.replace(epochs=0), progress="none").space
    trained = fit(store, config, progress="none").space
    epochs: list[int] = []
    own = train_heads(start, store, config, on_epoch=lambda epoch, space: epochs.append(epoch))
    assert torch.allclose(weights(own), weights(trained), atol=1e-6)
    assert not torch.allclose(weights(own), weights(start), atol=1e-3)
    assert epochs == [1, 2, 3]


def test_decay_moves_the_weights_towards_the_start(store: EmbeddingStore) -> None:
    """One step with lambda equals the plain step followed by W - lr lambda (W - W_0)."""
    start = fit(store, CONFIG.replace(epochs=0), progress="none").space
    one = CONFIG.override({"epochs": 1, "batch_size": 64, "warmup_ratio": 0.0})
    plain = train_heads(start, store, one)
    decayed = train_heads(start, store, one, decay_to_start=30.0)
    moved = weights(plain) - weights(start)
    assert float(moved.abs().max()) > 1e-3
    assert torch.allclose(weights(decayed), weights(start) + (1 - one.lr * 30.0) * moved, atol=1e-6)
    held = train_heads(start, store, CONFIG, decay_to_start=1e6)
    assert torch.allclose(weights(held), weights(start), atol=1e-2)
    half = interpolated(start, plain, 0.25)
    assert torch.allclose(weights(half), weights(start) + 0.25 * moved, atol=1e-6)
    assert torch.allclose(weights(mean_weights([plain, start])), weights(start) + 0.5 * moved, atol=1e-6)


def test_a_queue_adds_negatives(store: EmbeddingStore) -> None:
    start = fit(store, CONFIG.replace(epochs=0), progress="none").space
    first, queued = (train_heads(start, store, CONFIG, queue_size=size) for size in (0, 16))
    assert not torch.allclose(weights(first), weights(queued), atol=1e-5)


# --- the whole study ------------------------------------------------------------------------------------------------


def options(folder: str, **changes: Any) -> FrontOptions:
    settings: dict[str, Any] = {
        "data": (NAME,),
        "recipes": ("kernel",),
        "entries": ("infonce", "unialign", "small_batch"),
        "regimes": ("mispaired", "continued"),
        "trials": 1,
        "splits": (0, 1),
        "seeds": (0, 1),
        "epochs": 1,
        "resamples": 100,
        "regime_trials": 1,
        "regime_splits": (1,),
        "keep_entries": ("infonce",),
        "keep_trials": 1,
        "keep_splits": (0,),
        "keep_seeds": (0,),
        "stores": {NAME: folder},
    }
    return FrontOptions(**settings | changes)


def test_a_smoke_run_reaches_its_page(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int]] = []

    def spied(job: FrontJob) -> Any:
        trained_on, _, _ = job.opened()
        seen.append((job.file.parent.name, -1 if job.k is None else len(trained_on.rows("test")) * (not job.keep)))
        return work(job)

    monkeypatch.setattr(front, "work", spied)
    plan = FrontPlan(options(folder), tmp_path)
    empty = json.loads(json.dumps(write_results(plan, tmp_path)))
    assert "Not run yet." in (tmp_path / "page.md").read_text()
    assert all(one["done"] == 0 for one in empty["study"]["progress"])
    assert plan.jobs("test", NAME) == [], "settings are not chosen before all trials are finished"
    for part in ("start", "tuning", "test", "regimes"):
        front.run_part(plan, part, NAME, 1)
    assert {rows for _, rows in seen if rows >= 0} == {0}, "trainings that compare settings have no test rows"
    assert {name for name, rows in seen if rows < 0} == {"start", "test"}
    before = len(seen)
    for part in ("start", "tuning", "test", "regimes"):
        front.run_part(FrontPlan(options(folder), tmp_path), part, NAME, 1)
    assert len(seen) == before, "finished trainings are not repeated"
    results = write_results(FrontPlan(options(folder), tmp_path), tmp_path)
    study = results["study"]
    assert {one["objective"] for one in study["hypervolume"]} == {"infonce", "unialign", "small_batch"}
    paired = [one for one in study["test"] if one["baseline"]]
    assert len(paired) == 3 * 5, "InfoNCE has one baseline, and the others two"
    assert study["tests_in_family"] == len(paired)
    assert all(test["p"] <= test["p_holm"] <= 1 for test in paired)
    assert {one["regime"] for one in study["regimes"]} == {"mispaired", "continued"}
    _check_default(study, FrontPlan(options(folder), tmp_path))
    text = (tmp_path / "page.md").read_text()
    assert text.count("Not run yet.") == 1, "the part `keep`"
    for section in load_page("front")(results):
        assert f"<!-- generated: {section.key} -->" in text
    assert (tmp_path / "report.html").read_text().count("<svg") == 2
    assert "[1/" in capsys.readouterr().out
    with pytest.raises(DataError, match="other settings"):
        FrontPlan(options(folder, epochs=2), tmp_path).chosen(NAME, "kernel", "infonce")


@pytest.mark.slow
def _check_default(study: dict[str, Any], plan: FrontPlan) -> None:
    """The default has the highest development score; test rows have no influence."""
    gains = {}
    for entry in ("infonce", "unialign", "small_batch"):
        logs = []
        for k in (0, 1):
            trained, start = plan.tuning_job(NAME, "kernel", entry, 0, k), plan.closed_job(NAME, k)
            assert trained is not None
            assert start is not None
            own, base = (plan.record(job).metrics for job in (trained, start))  # type: ignore[union-attr]
            logs += [math.log(max(own[m], 1e-4) / max(base[m], 1e-4)) for m in METRICS if m in own]
        gains[entry] = sum(logs) / len(logs)
    found = study["default"]
    assert found["chosen"] == max(gains, key=lambda entry: gains[entry])
    assert found["means"] == pytest.approx(gains, rel=1e-5)


def test_training_that_keeps_its_start_is_compared_with_it(folder: str, tmp_path: Path) -> None:
    plan = FrontPlan(options(folder), tmp_path)
    for part in ("start", "keep"):
        front.run_part(plan, part, NAME, 1)
    study = write_results(FrontPlan(options(folder), tmp_path), tmp_path)["study"]
    assert [one["variant"] for one in study["keep"]] == 2 * [name for name in VARIANTS if name != "start"]
    tests = [test for one in study["keep"] for test in one["differences"]]
    assert study["tests_in_family"] == len(tests) == 2 * 6 * 3
    for one in study["keep"]:
        for test in one["differences"]:
            change = one["means"][test["metric"]] - one["start"][test["metric"]]
            assert test["mean"] == pytest.approx(change, abs=1e-6)
    job = plan.keep_job(NAME, "infonce", True, 0, k=0, seed=100)
    assert job is not None
    record = job.read_back()
    assert record is not None
    assert record.facts["share"] in SHARES
    assert record.facts["epoch"] in (0, 1)
    assert "minus kernel GCCA" in (tmp_path / "page.md").read_text()


def test_a_diverged_training_is_recorded_as_failed(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*arguments: Any, **more: Any) -> None:
        raise NonFiniteError("training stopped at step 3")

    plan = FrontPlan(options(folder), tmp_path)
    monkeypatch.setattr(plan, "start", lambda data: {"init_regularization": 0.01, "init_spectrum_power": 0.0})
    job = plan.tuning_job(NAME, "kernel", "infonce", 0, 0)
    assert job is not None
    monkeypatch.setattr(jobs_module, "fit", diverge)
    record = work(job)
    assert record.failed == "training stopped at step 3"
    assert math.isnan(plan_module.trial_score([record]))
    again = job.read_back()
    assert again is not None
    assert again.failed == record.failed


def test_every_job_of_the_shipped_data_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are checked when they are created, so this finds options that do not exist."""
    plan = FrontPlan(FrontOptions(data=("emoji", "digits"), recipes=("kernel",), trials=2, regime_trials=1), tmp_path)
    monkeypatch.setattr(plan, "start", lambda data: {"init_regularization": 0.001, "init_spectrum_power": 0.0})
    for data in plan.data:
        names = [job.file.name for part in ("start", "tuning", "regimes", "keep") for job in plan.jobs(part, data)]
        assert len(set(names)) == len(names)
        assert len(plan.jobs("tuning", data)) == len(plan.entries) * 2 * 3
        assert plan.jobs("test", data) == []
    assert "modalities8" in regimes_of("emoji")
    assert "modalities7" not in regimes_of("digits")
    assert {"infonce", "unialign", "sigmoid", "gram"} <= {name for name in ENTRIES if not missing_options(name)}


def test_the_command_line_lists_and_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert all(name in capsys.readouterr().out for name in PARTED)
    assert main(["front", "--estimate", "--data", "digits", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "start    digits     0 of 4 trainings done" in said
    assert f"test     digits     0 of {2 * len(ENTRIES) * 10} trainings done" in said
    assert not (tmp_path / "out").exists()
