"""Test the data transforms, the statistics over runs, the evaluation steps and the plans of studies."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from study_cases import MODALITIES, TRAIN, write_store

from research import COSTS, STUDIES, load_study
from research._estimates import rank_correlation, seed_interval
from research._plan import Arm, DataTransform, EvalHook, Options
from research._run import make_plan, trainings
from research._settings import OBJECTIVE_TRIALS, TRIALS, registered
from research._transforms import transformed, with_presence
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.losses import names


def test_dropped_entries_are_training_entries(tmp_path: Path) -> None:
    store = EmbeddingStore.open(write_store(tmp_path / "store"))
    for seed in range(5):
        thin = transformed(store, DataTransform("drop_entries", {"fraction": 0.8}), seed)
        kept = np.stack([thin.present(name) for name in MODALITIES], 1)
        assert kept[TRAIN:].all()
        assert kept[:TRAIN].any(1).all()
        assert kept[:TRAIN].mean() < 0.6
        assert np.array_equal(thin.array("text"), store.array("text"))
        for rows in ("ids", "groups", "labels", "split"):
            assert np.array_equal(getattr(thin, rows), getattr(store, rows))
    first, again, other = (
        transformed(store, DataTransform("drop_entries", {"fraction": 0.5}), seed) for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert transformed(store, None, 0) is store
    assert with_presence(store, {}).fingerprint != first.fingerprint


def test_the_dropped_fraction_is_the_requested_one() -> None:
    rng = np.random.default_rng(0)
    store = EmbeddingStore.from_arrays({name: rng.normal(size=(4000, 2)) for name in "abc"})
    for fraction in (0.0, 0.3, 0.6):
        thin = transformed(store, DataTransform("drop_entries", {"fraction": fraction}), 3)
        # An item that would lose all three entries keeps one, which reduces the fraction of dropped entries.
        expected = fraction - fraction**3 / 3
        assert 1 - np.mean([thin.present(name).mean() for name in "abc"]) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("change", [DataTransform("forget"), DataTransform("drop_entries", {"fraction": 1.0})])
def test_unknown_or_impossible_transforms_raise(change: DataTransform) -> None:
    store = EmbeddingStore.from_arrays({"a": np.ones((3, 2)), "b": np.ones((3, 2))})
    with pytest.raises(ConfigError, match=r"unknown transform 'forget'|fraction must be in \[0, 1\)"):
        transformed(store, change, 0)


def test_evaluations_include_both_ends_and_are_denser_early() -> None:
    steps = EvalHook("conflict", points=8).steps(200)
    assert steps[0] == 0
    assert steps[-1] == 200
    assert len(steps) == 8
    assert all(b - a < c - b for a, b, c in zip(steps, steps[1:], steps[2:], strict=False))
    assert EvalHook("conflict", points=8).steps(3) == [0, 1, 2, 3]
    assert EvalHook("conflict", points=2).steps(50) == [0, 50]


def test_intervals_over_seeds_are_t_intervals() -> None:
    values = [0.2, 0.5, 0.1, 0.4, 0.9]
    found = seed_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert found == pytest.approx((np.mean(values), low, high), abs=1e-3)
    one = seed_interval([0.3, None, float("nan")])
    assert one.mean == 0.3
    assert np.isnan(one.low)
    assert np.isnan(seed_interval([]).mean)


def test_rank_correlation_of_one_cell_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 30).astype(float)
    y = x + rng.normal(size=30) * 2
    found = rank_correlation({"all": list(zip(x, y, strict=True))})
    assert found["mean"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found["low"] < found["mean"] < found["high"]
    assert (found["runs"], found["cells"]) == (30, 1)


def test_differences_between_cells_are_not_correlated() -> None:
    """If R@1 falls and zeta rises with M, the pooled correlation is near -1, but within cells it is near 0."""
    rng = np.random.default_rng(1)
    cells = {m: [(m + 0.1 * rng.normal(), -m + 0.1 * rng.normal()) for _ in range(10)] for m in range(12)}
    pooled = rank_correlation({0: [pair for pairs in cells.values() for pair in pairs]})
    assert pooled["mean"] < -0.9
    within = rank_correlation(cells)
    assert abs(within["mean"]) < 0.25
    assert within["low"] < 0 < within["high"]


def test_rank_correlation_ignores_missing_values_and_small_cells() -> None:
    few = {"a": [(1.0, 2.0), (2.0, 1.0)], "b": [(1.0, 1.0)] * 4, "c": [(None, 1.0), (float("nan"), 2.0)]}
    assert np.isnan(rank_correlation(few)["mean"])
    assert rank_correlation({})["runs"] == 0


def test_every_objective_has_its_trials() -> None:
    assert set(OBJECTIVE_TRIALS) == set(names()) == set(registered())
    assert {len(trials) for trials in OBJECTIVE_TRIALS.values()} == {TRIALS}
    for trials in OBJECTIVE_TRIALS.values():
        assert len({str(sorted(settings.items())) for settings in trials}) == TRIALS


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_plan_that_fits_the_shipped_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make_plan` raises an error if settings do not fit the data or tuned arms have different budgets."""
    # A study may add data that other commands wrote to the working directory.
    monkeypatch.chdir(tmp_path)
    study = load_study(name)
    assert study.name == name
    plan, options, stores = make_plan(study, Options(study=name))
    assert trainings(plan, options) == COSTS[name][0], "the number in --help"
    assert max(arm.train.epochs for arm in plan.arms) == study.epochs, "the number that smoke runs are compared with"
    assert set(options.fingerprints) == set(stores)
    assert len(options.seeds) >= 5
    quick, _, _ = make_plan(study, Options(study=name, epochs=1, seeds=(0,)))
    assert {arm.train.epochs for arm in quick.arms} - {0} == {1}, "closed forms have no epochs"
    assert [arm.key for arm in quick.arms] == [arm.key for arm in plan.arms]


def test_each_seed_adds_modalities_in_another_order() -> None:
    """The number of modalities must not be confounded with the choice of modalities."""
    plan, _, _ = make_plan(load_study("conflict"), Options(study="conflict"))
    sweep = [arm for arm in plan.arms if arm.factors["part"] == "sweep"]
    for data, most in (("digits", 6), ("emoji", 8)):
        by_m = {arm.factors["M"]: arm for arm in sweep if arm.factors["data"] == data}
        assert set(by_m) == set(range(2, most + 1))
        for seed in range(5):
            chosen = [by_m[m].per_seed[seed]["modalities"] for m in sorted(by_m)]
            assert all(small == large[: len(small)] for small, large in itertools.pairwise(chosen))
            assert [len(names) for names in chosen] == sorted(by_m)
        assert len({tuple(by_m[3].per_seed[seed]["modalities"]) for seed in range(5)}) > 2
    ablation = make_plan(load_study("ablation"), Options(study="ablation"))[0]
    kept = {arm.factors["terms"] for arm in ablation.arms if "terms" in arm.factors and arm.key != "terms-paper"}
    assert len(kept) == 16


def test_an_unknown_study_raises_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="ablation"):
        load_study("abolition")


def test_settings_of_the_seed_override_tuned_ones() -> None:
    from study_cases import base

    arm = Arm(key="a", label="a", data="tiny", train=base("infonce", 2), per_seed={3: {"lr": 0.5}})
    assert arm.config(3, {"lr": 0.1}).lr == 0.5
    assert arm.config(4, {"lr": 0.1}).lr == 0.1
    assert arm.config(4, {}).seed == 4
