"""Test that the batches of a mixture have the given shares, and depend only on the seed and the step."""

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings, strategies as st

from unialign.config import MixtureMode
from unialign.errors import ConfigError
from unialign.train._mixture_batches import MixtureBatches
from unialign.train._source_order import SourceOrder, integer_weights
from unialign.train._source_rows import SourceRows


def mixture(
    sizes: dict[str, int],
    weights: dict[str, float],
    mode: MixtureMode = "alternate",
    *,
    batch_size: int = 8,
    accumulation_steps: int = 1,
    epochs: int = 3,
    seed: int = 0,
    epoch_steps: int | None = None,
) -> MixtureBatches:
    return MixtureBatches(
        sum(sizes.values()), batch_size, accumulation_steps, epochs, seed, sizes, weights, mode, epoch_steps
    )


def source_of(sizes: dict[str, int], rows: torch.Tensor) -> list[str]:
    names = [name for name, size in sizes.items() for _ in range(size)]
    return [names[row] for row in rows.tolist()]


def all_batches(batches: MixtureBatches) -> list[torch.Tensor]:
    return [rows for step in range(batches.steps) for rows in batches.rows(step)]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_after_any_number_of_batches_each_source_is_within_one_batch_of_its_share(weights: list[int]) -> None:
    order, counts, total = SourceOrder(weights), [0] * len(weights), sum(weights)
    for batch in range(2 * total + 3):
        source, earlier = order.at(batch)
        assert earlier == counts[source]
        counts[source] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - Fraction(weight * (batch + 1), total)) < 1


def test_the_largest_deficit_first_would_leave_a_source_more_than_one_batch_behind() -> None:
    weights = [17, 334, 1, 3, 1, 3, 89, 3]
    total, greedy, worst = sum(weights), [0] * 8, Fraction(0)
    for batch in range(total):
        deficits = [Fraction(w * (batch + 1), total) - n for w, n in zip(weights, greedy, strict=True)]
        greedy[deficits.index(max(deficits))] += 1
        worst = max(worst, *(Fraction(w * (batch + 1), total) - n for w, n in zip(weights, greedy, strict=True)))
    assert worst > 1


def test_equal_weights_take_turns_and_two_to_one_is_even() -> None:
    assert [SourceOrder([1, 1]).at(batch)[0] for batch in range(6)] == [0, 1] * 3
    assert [SourceOrder([2, 1]).at(batch)[0] for batch in range(9)] == [0, 1, 0] * 3


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([2.0, 1.0], [2, 1]), ([0.1, 0.3], [1, 3]), ([1e-3, 1.0], [1, 1000]), ([0.5], [1]), ([1.25, 2.5, 5], [1, 2, 4])],
)
def test_weights_are_read_as_decimal_numbers(weights: list[float], expected: list[int]) -> None:
    assert integer_weights(weights) == expected


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_rows_come_in_permutations_and_do_not_repeat_within_a_window(size: int, window: int, seed: int) -> None:
    window = min(size, window)
    rows = SourceRows(10, size, window, seed=seed, name="a")
    length = 6 * size
    found = torch.cat([rows.take(start, min(window, length - start)) for start in range(0, length, window)]).tolist()
    for cycle in range(6):
        assert sorted(found[cycle * size : (cycle + 1) * size]) == list(range(10, 10 + size))
    for start in range(length - window):
        assert len(set(found[start : start + window])) == window


@pytest.mark.parametrize(("size", "window"), [(7, 6), (9, 8), (20, 8), (200, 8), (40, 1)])
def test_rows_of_a_place_do_not_depend_on_earlier_calls(size: int, window: int) -> None:
    rows, starts = SourceRows(0, size, window, seed=3, name="a"), list(range(0, 300 * size, 7 * size - 3))
    forward = [rows.take(start, window).tolist() for start in starts]
    backward = [rows.take(start, window).tolist() for start in reversed(starts)]
    new = [SourceRows(0, size, window, seed=3, name="a").take(start, window).tolist() for start in starts[-3:]]
    assert forward == backward[::-1]
    assert forward[-3:] == new


def test_cycles_sources_and_seeds_have_different_orders() -> None:
    def orders(seed: int, name: str) -> list[tuple[int, ...]]:
        return [tuple(SourceRows(0, 30, 4, seed=seed, name=name).take(30 * c, 30).tolist()) for c in range(4)]

    torch.manual_seed(1)
    first = orders(0, "a")
    torch.manual_seed(2)
    assert orders(0, "a") == first
    assert len({*first, *orders(1, "a"), *orders(0, "b")}) == 12


@given(
    st.lists(st.integers(2, 60), min_size=2, max_size=4),
    st.lists(st.sampled_from([0.3, 0.5, 1.0, 2.0, 7.5]), min_size=4, max_size=4),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_alternating_batches(sizes: list[int], weights: list[float], accumulation_steps: int) -> None:
    named = {f"s{i}": size for i, size in enumerate(sizes)}
    shares = dict(zip(named, weights, strict=False))
    batches = mixture(named, shares, accumulation_steps=accumulation_steps)
    batches.check()
    found = all_batches(batches)
    assert len(found) == 3 * batches.batches_per_epoch
    assert all(1 <= len(batches.rows(step)) <= accumulation_steps for step in range(batches.steps))
    total, counts = sum(shares.values()), Counter[str]()
    for number, rows in enumerate(found, start=1):
        (source,) = set(source_of(named, rows))
        assert len(rows) == len(rows.unique()) == min(8, named[source])
        counts[source] += 1
        for name in named:
            assert abs(counts[name] - shares[name] / total * number) < 1 + 1e-9


@given(
    st.lists(st.integers(14, 60), min_size=2, max_size=4),
    st.lists(st.sampled_from([1.0, 1.5, 2.0, 2.75]), min_size=4, max_size=4),
    st.integers(11, 13),
)
@settings(max_examples=40, deadline=None)
def test_blended_batches(sizes: list[int], weights: list[float], batch_size: int) -> None:
    named = {f"s{i}": size for i, size in enumerate(sizes)}
    shares = dict(zip(named, weights, strict=False))
    batches = mixture(named, shares, "blend", batch_size=batch_size)
    batches.check()
    total, counts = sum(shares.values()), Counter[str]()
    for number, rows in enumerate(all_batches(batches), start=1):
        assert len(rows) == len(rows.unique()) == batch_size
        of_batch = Counter(source_of(named, rows))
        counts += of_batch
        for name in named:
            exact = shares[name] / total * batch_size
            assert abs(of_batch[name] - exact) < 2
            assert abs(counts[name] - exact * number) < 1 + 1e-9


@pytest.mark.parametrize("mode", ["alternate", "blend"])
def test_an_epoch_visits_the_largest_source_once_and_repeats_no_row_of_others_before_all_were_visited(
    mode: MixtureMode,
) -> None:
    sizes = {"large": 96, "small": 24}
    batches = mixture(sizes, {"large": 2, "small": 1}, mode, batch_size=12, epochs=2)
    assert batches.batches_per_epoch == 12
    for epoch in range(2):
        steps = range(12 * epoch, 12 * epoch + 12)
        assert {batches.epoch(step) for step in steps} == {epoch}
        rows = torch.cat([rows for step in steps for rows in batches.rows(step)])
        assert sorted(rows[rows < 96].tolist()) == list(range(96))
        small = rows[rows >= 96].tolist()
        assert len(small) == 48
        assert Counter(small) == dict.fromkeys(range(96, 120), 2)
    first, second = ([r.tolist() for s in range(12 * e, 12 * e + 12) for r in batches.rows(s)] for e in range(2))
    assert first != second


def test_the_length_of_an_epoch_can_be_given_in_steps() -> None:
    batches = mixture({"a": 50, "b": 50}, {"a": 1, "b": 1}, epoch_steps=5, accumulation_steps=2, epochs=4)
    assert (batches.batches_per_epoch, batches.steps_per_epoch, batches.steps) == (10, 5, 20)
    assert all(len(batches.rows(step)) == 2 for step in range(20))
    assert [batches.epoch(step) for step in (0, 4, 5, 19)] == [0, 0, 1, 3]


@pytest.mark.parametrize("mode", ["alternate", "blend"])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_the_rows_of_a_step_depend_only_on_the_step(mode: MixtureMode, accumulation_steps: int) -> None:
    def new() -> MixtureBatches:
        return mixture(
            {"a": 23, "b": 10, "c": 40},
            {"a": 1, "b": 1, "c": 1.7},
            mode,
            accumulation_steps=accumulation_steps,
            epochs=5,
        )

    batches = new()
    forward = [[rows.tolist() for rows in batches.rows(step)] for step in range(batches.steps)]
    backward = [[rows.tolist() for rows in batches.rows(step)] for step in reversed(range(batches.steps))]
    resumed = [[rows.tolist() for rows in new().rows(step)] for step in range(batches.steps)]
    assert forward == backward[::-1] == resumed


def test_blended_rows_are_shuffled_so_that_each_process_has_rows_of_all_sources() -> None:
    batches = mixture({"a": 400, "b": 400}, {"a": 1, "b": 1}, "blend", batch_size=64)
    for step in range(5):
        rows = batches.rows(step)[0]
        for half in rows.chunk(2):
            assert 4 <= int((half < 400).sum()) <= 28


def test_a_source_smaller_than_a_batch_gives_all_of_its_rows() -> None:
    batches = mixture({"large": 64, "tiny": 3}, {"large": 1, "tiny": 1})
    found = [sorted(batches.rows(step)[0].tolist()) for step in range(1, batches.steps, 2)]
    assert found == [[64, 65, 66]] * len(found)


@pytest.mark.parametrize(
    ("sizes", "weights", "mode", "message"),
    [
        ({"a": 9, "b": 1}, {"a": 1, "b": 1}, "alternate", "the source 'b' has 1 training row, but a batch needs"),
        ({"a": 90, "b": 3}, {"a": 1, "b": 1}, "blend", "the source 'b' has 3 training rows, but up to 4 of a batch"),
        ({"a": 90, "b": 90}, {"a": 20, "b": 1}, "blend", "the source 'b' has 0.38 rows of a batch of 8"),
    ],
)
def test_sources_too_small_for_their_share(
    sizes: dict[str, int], weights: dict[str, float], mode: MixtureMode, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture(sizes, weights, mode).check()
