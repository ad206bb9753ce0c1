"""Test that every proposal is valid, and depends only on what it may depend on."""

from dataclasses import replace

import pytest

from tuning_cases import FIXED, small_store
from unialign.config import CLOSED_FORMS, HyperparameterSearchConfig, TrainConfig, closed_form_of
from unialign.errors import ConfigError, MissingDependencyError
from unialign.train import check_fit
from unialign.tuning import Trial, _optuna
from unialign.tuning._draws import RandomDraw
from unialign.tuning._optuna import Distributions, TpeDraw
from unialign.tuning._propose import SearchSpace
from unialign.tuning._scores import Goal
from unialign.tuning._shipped import is_searched, shipped_settings
from unialign.tuning._variation import VariedDraw, local_draw, params_of

MODALITIES = ("image", "text", "audio")
OBJECTIVES = ("unialign", "infonce", "sigmoid", "gram", "symile", *CLOSED_FORMS)


def proposals(space: SearchSpace, count: int, seed: int = 0) -> list[TrainConfig]:
    return [space.propose(RandomDraw(seed, number)) for number in range(count)]


def test_random_proposals_fit_the_data_and_cover_the_space() -> None:
    store, space = small_store(), SearchSpace(MODALITIES, OBJECTIVES, {})
    found = proposals(space, 70)
    for train in found:
        check_fit(store, train)
        assert train.modalities == MODALITIES
    assert {closed_form_of(train) or train.objective for train in found} == set(OBJECTIVES)
    assert {(train.head, train.init) for train in found if train.epochs} == {
        ("kernel", "gcca"),
        ("linear", "gcca"),
        ("mlp", "random"),
    }
    family = [train.objective_options for train in found if train.epochs and train.objective == "unialign"]
    for option in ("partition_mix", "anchor", "similarity_scale", "partition_positive"):
        assert len({options.get(option) for options in family}) > 1, option


def test_proposals_depend_on_seed_and_number_only() -> None:
    space = SearchSpace(MODALITIES, OBJECTIVES, {})
    assert proposals(space, 20) == proposals(space, 20)
    assert proposals(space, 20) != proposals(space, 20, seed=1)
    assert len({str(train) for train in proposals(space, 20)}) > 15


def test_variations_stay_near_good_trials_and_are_valid() -> None:
    store, space = small_store(), SearchSpace(MODALITIES, ("unialign", "infonce", *CLOSED_FORMS), {})
    goal = Goal(("recall@1",), items=20)
    seen = [
        Trial(number, 0, "shipped", one.name, {}, one.train, metrics={"recall@1": 0.1 * ("joint" in one.name)})
        for number, one in enumerate(shipped_settings(store, space))
    ]
    best = next(trial for trial in seen if "joint" in trial.name)
    near = params_of(best.train)
    assert near["unialign.similarity_scale"] == 5.0
    assert near["unialign.alignment_weight"] == 0.7
    assert near["start"] == "kernel_gcca"
    draws = [local_draw(0, number, seen, goal) for number in range(20, 90)]
    found = [space.propose(draw) for draw in draws]
    for train in found:
        check_fit(store, train)
    varied = [draw for draw in draws if isinstance(draw, VariedDraw)]
    assert 20 <= len(varied) <= 50
    assert found == [space.propose(local_draw(0, number, seen, goal)) for number in range(20, 90)]
    # Without results, all proposals are drawn at random.
    assert not isinstance(local_draw(0, 3, [], goal), VariedDraw)
    only = [replace(trial, metrics={"recall@1": 0.0}, state="pruned") for trial in seen if trial is not best]
    kept = [space.propose(local_draw(0, number, [*only, best], goal)) for number in range(20, 90)]
    assert sum(train.objective_options.get("similarity_scale") == 5.0 for train in kept) > 15


def test_fixed_settings_are_not_searched() -> None:
    space = SearchSpace(MODALITIES, ("unialign", "gcca"), {"dim": 5, "head": "linear", "lr": 0.01, "epochs": 3})
    for number in range(20):
        draw = RandomDraw(0, number)
        train = space.propose(draw)
        assert train.dim == 5
        assert train.head == "linear"
        assert not {"dim", "gcca.lr", "gcca.epochs"} & set(draw.params)
        assert train.epochs == 0 or (train.lr, train.epochs) == (0.01, 3)


def test_shipped_settings_begin_with_the_default_and_contain_closed_forms_and_presets() -> None:
    store, space = small_store(), SearchSpace(MODALITIES, ("unialign", "infonce", *CLOSED_FORMS), dict(FIXED))
    found = shipped_settings(store, space)
    assert found[0].train == TrainConfig(objective_options={"anchor": "all"}, modalities=MODALITIES, **FIXED)
    assert {closed_form_of(one.train) for one in found} == {None, *CLOSED_FORMS}
    presets = {one.train.objective_options.get("preset") for one in found}
    assert presets >= {"retrieval", "joint_queries", "classes", "small_batch"}
    for one in found:
        check_fit(store, one.train)
        assert one.train.dim == 6
    only = SearchSpace(MODALITIES, ("gcca",), {})
    assert [closed_form_of(one.train) for one in shipped_settings(store, only, with_default=False)] == ["gcca"]
    assert not is_searched(shipped_settings(store, only)[0].train, only)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": ()}, "one to three"),
        ({"metric": ("auto", "recall@1")}, "auto"),
        ({"objectives": ("kernel_gca",)}, "did you mean 'kernel_gcca'"),
        ({"fixed": {"objective": "gram"}}, "cannot be fixed"),
        ({"fixed": {"dim": 0}}, "dim must be"),
        ({"trials": 0}, "trials must be"),
        ({"minutes": 0}, "minutes must be"),
    ],
)
def test_invalid_settings_raise(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HyperparameterSearchConfig(**changes)  # type: ignore[arg-type]


def test_without_a_budget_there_are_50_trials() -> None:
    assert HyperparameterSearchConfig().limit == 50
    assert HyperparameterSearchConfig(minutes=5).limit is None
    assert HyperparameterSearchConfig(minutes=5, trials=7).limit == 7


def test_without_optuna_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[tune\]"):
        _optuna.load_optuna()


def told(space: SearchSpace, count: int, metrics: int) -> list[tuple[dict[str, object], list[float]]]:
    found = []
    for number in range(count):
        draw = RandomDraw(0, number)
        train = space.propose(draw)
        # Linear heads are best, so that the estimator has something to learn.
        found.append((draw.params, [float(train.head == "linear") + 0.01 * number] * metrics))
    return found


@pytest.mark.parametrize("metrics", [1, 2])
def test_proposals_of_optuna_are_deterministic_valid_and_learn(metrics: int) -> None:
    pytest.importorskip("optuna")
    store, space = small_store(), SearchSpace(MODALITIES, ("unialign", "infonce"), {})
    seen, known = told(space, 40, metrics), Distributions()
    for params, _ in seen:
        known.add(params, space)

    def propose(number: int) -> TrainConfig:
        return space.propose(TpeDraw(0, number, seen, metrics=metrics, distributions=known.found))

    first = [propose(number) for number in range(40, 52)]
    assert first == [propose(number) for number in range(40, 52)]
    for train in first:
        check_fit(store, train)
    assert sum(train.head == "linear" for train in first) > 6
