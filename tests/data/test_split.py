"""Test that random splits keep groups together, have the requested fractions, and are reproducible."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unialign.data import EmbeddingStore, random_split
from unialign.errors import ConfigError, ShapeError


def sizes(codes: Any) -> list[int]:
    return [int(count) for count in np.bincount(codes, minlength=3)]


def test_fractions_are_exact_for_single_items() -> None:
    assert sizes(random_split(1000)) == [700, 100, 200]
    assert sizes(random_split(10)) == [7, 1, 2]
    assert sizes(random_split(100, fractions=(0.5, 0, 0.5))) == [50, 0, 50]
    assert random_split(3).dtype == np.int8


def test_pure_function_of_the_seed() -> None:
    np.testing.assert_array_equal(random_split(500, seed=3), random_split(500, seed=3))
    assert (random_split(500, seed=3) != random_split(500, seed=4)).any()


def test_splits_equal_held_values() -> None:
    """Splits must be the same on all platforms and NumPy versions, since users rely on them."""
    assert "".join(map(str, random_split(40, seed=0))) == "0200010220002000000021020202100000001000"
    assert "".join(map(str, random_split(12, seed=1, groups=np.arange(12) // 3))) == "000000000222"


def test_labels_are_stratified() -> None:
    labels = np.repeat([-1, 0, 1], [100, 50, 30])
    codes = random_split(180, labels=labels)
    assert [sizes(codes[labels == label]) for label in (-1, 0, 1)] == [[70, 10, 20], [35, 5, 10], [21, 3, 6]]


def test_small_labels_are_spread_over_all_splits() -> None:
    labels = np.repeat(np.arange(100), 2)
    assert sizes(random_split(200, labels=labels)) == [140, 20, 40]


@given(
    group=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    seed=st.integers(0, 2**32),
    stratify=st.booleans(),
)
def test_groups_stay_whole(group: list[int], seed: int, stratify: bool) -> None:
    labels = np.arange(len(group)) % 3 if stratify else None
    codes = random_split(len(group), groups=group, labels=labels, seed=seed)
    for number in set(group):
        assert len(set(codes[np.array(group) == number])) == 1
    EmbeddingStore.from_arrays({"x": np.ones((len(group), 1))}, groups=group, split=codes)


@given(sizes_G=st.lists(st.integers(1, 9), min_size=20, max_size=200), seed=st.integers(0, 99))
def test_groups_approximate_the_fractions(sizes_G: list[int], seed: int) -> None:
    items = sum(sizes_G)
    codes = random_split(items, groups=np.repeat(np.arange(len(sizes_G)), sizes_G), seed=seed)
    for found, share in zip(sizes(codes), (0.7, 0.1, 0.2), strict=True):
        assert abs(found - share * items) <= max(sizes_G)


def test_groups_may_be_texts() -> None:
    codes = random_split(4, groups=["a", "b", "a", "b"], fractions=(0.5, 0, 0.5))
    assert codes[0] == codes[2] != codes[1] == codes[3]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.1, 0.1), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5), ()])
def test_bad_fractions(fractions: Any) -> None:
    with pytest.raises(ConfigError, match=r"three numbers in .* that sum to 1"):
        random_split(10, fractions=fractions)


@pytest.mark.parametrize("arguments", [{"items": 0}, {"items": -1}, {"items": 3, "seed": -1}])
def test_bad_numbers(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="items must be an integer >= 1 and seed an integer >= 0"):
        random_split(**arguments)


@pytest.mark.parametrize("what", ["groups", "labels"])
def test_bad_shapes(what: str) -> None:
    arguments: dict[str, Any] = {what: [1, 2]}
    with pytest.raises(ShapeError, match=rf"{what} has shape \(2,\), expected \(3,\)"):
        random_split(3, **arguments)
