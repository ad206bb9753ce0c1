"""Compare utilities, Pareto fronts and hypervolumes with slow references."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unialign.config import TrainConfig
from unialign.tuning import hypervolume, pareto_front
from unialign.tuning._pruning import is_hopeless, limits_of
from unialign.tuning._scores import Goal, dominates
from unialign.tuning._trial import Trial

points_of = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 6), min_size=size, max_size=size), min_size=1, max_size=7)
)


def counted_volume(points: list[list[int]], size: int) -> int:
    """Count the unit cells of a grid that a point dominates, with the origin as reference."""
    cells = itertools.product(range(6), repeat=size)
    return sum(any(all(x >= c + 1 for x, c in zip(p, cell, strict=True)) for p in points) for cell in cells)


@given(points_of)
def test_hypervolume_equals_the_number_of_dominated_cells(points: list[list[int]]) -> None:
    size = len(points[0])
    assert hypervolume(points, [0] * size) == pytest.approx(counted_volume(points, size))


def test_hypervolume_of_points_at_the_reference_is_0() -> None:
    assert hypervolume([[1.0, 5.0]], [1.0, 0.0]) == 0.0
    assert hypervolume([], [0.0, 0.0]) == 0.0


@given(points_of)
def test_the_front_has_exactly_the_points_that_no_other_dominates(points: list[list[int]]) -> None:
    front = pareto_front(dict(enumerate(points)))
    for i, point in enumerate(points):
        is_dominated = any(dominates(other, point) for other in points)
        is_repeated = any(points[j] == point for j in range(i))
        assert (i in front) == (not is_dominated and not is_repeated)
    size = len(points[0])
    volume = hypervolume([points[i] for i in front], [-1] * size)
    assert volume == pytest.approx(hypervolume(points, [-1] * size))


def test_utilities_are_signed_logarithms_with_a_floor() -> None:
    goal = Goal(("recall@1", "modality_gap_debiased"), items=50)
    assert goal.utilities({"recall@1": 0.2, "modality_gap_debiased": 0.5}) == pytest.approx(
        (math.log(0.2), -math.log(0.5))
    )
    assert goal.utilities({"recall@1": 0.0, "modality_gap_debiased": 1.0})[0] == pytest.approx(math.log(0.01))
    assert goal.score({"recall@1": 0.2, "modality_gap_debiased": 0.5}) == pytest.approx(math.log(0.4) / 2)
    assert goal.score({"recall@1": math.nan, "modality_gap_debiased": 0.5}) == -math.inf
    auto = Goal(("auto",), items=50)
    found = auto.with_auto({"recall@1": 0.2, "joint_recall@1": 0.0, "label_map": 0.4})
    assert found["auto"] == pytest.approx(np.mean(np.log([0.2, 0.01, 0.4])))
    assert auto.utilities(found) == (found["auto"],)


def early(number: int, recall: float, labels: float) -> Trial:
    metrics = {"recall@1": recall, "label_map": labels}
    return Trial(number, 0, "random", "", {}, TrainConfig(), metrics=metrics, early={"0.25": metrics})


def test_a_trial_is_stopped_only_if_all_metrics_are_far_below_the_median() -> None:
    goal = Goal(("recall@1", "label_map"), items=100)
    seen = [early(i, recall, 0.5) for i, recall in enumerate((0.1, 0.2, 0.3, 0.4, 0.5))]
    assert limits_of(seen[:4], goal) == {}
    limits = limits_of(seen, goal)
    assert limits["0.25"] == pytest.approx((math.log(0.3 / 1.25), math.log(0.5 / 1.25)))
    assert is_hopeless({"recall@1": 0.2, "label_map": 0.3}, "0.25", limits, goal)
    assert not is_hopeless({"recall@1": 0.2, "label_map": 0.45}, "0.25", limits, goal)
    assert not is_hopeless({"recall@1": 0.25, "label_map": 0.3}, "0.25", limits, goal)
    assert not is_hopeless({"recall@1": 0.0, "label_map": 0.0}, "0.5", limits, goal)
