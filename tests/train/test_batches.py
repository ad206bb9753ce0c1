"""Test that the order of the rows and the learning rate depend only on the step and the settings."""

import itertools
import math

import pytest
import torch

from unialign.train import derived_seed, learning_rate
from unialign.train._batches import Batches


@pytest.mark.parametrize("accumulation_steps", [1, 2, 5])
def test_every_epoch_visits_every_item_once(accumulation_steps: int) -> None:
    for items in (2, 3, 8, 9, 10, 23, 24, 25):
        batches = Batches(items, 8, accumulation_steps, 3, 0)
        assert batches.steps == 3 * batches.steps_per_epoch
        for epoch in range(3):
            steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
            assert all(batches.epoch(step) == epoch for step in steps)
            seen = torch.cat([rows for step in steps for rows in batches.rows(step)])
            assert len(seen.unique()) == len(seen)
            assert len(seen) == (items - 1 if items > 1 and items % 8 == 1 else items)
            assert all(2 <= len(rows) <= 8 for step in steps for rows in batches.rows(step))
            assert all(1 <= len(batches.rows(step)) <= accumulation_steps for step in steps)


def test_orders_differ_by_seed_and_epoch_and_nothing_else() -> None:
    def orders(seed: int) -> list[tuple[int, ...]]:
        batches = Batches(40, 40, 1, 3, seed)
        return [tuple(batches.rows(step)[0].tolist()) for step in range(3)]

    torch.manual_seed(5)
    first = orders(0)
    torch.manual_seed(6)
    assert orders(0) == first
    # Seeding with seed + epoch would make epoch 1 of seed 0 equal to epoch 0 of seed 1.
    assert len({*first, *orders(1)}) == 6


def test_the_rows_of_a_step_do_not_depend_on_earlier_calls() -> None:
    batches = Batches(23, 8, 2, 10, 3)
    forward = [[rows.tolist() for rows in batches.rows(step)] for step in range(batches.steps)]
    backward = [[rows.tolist() for rows in batches.rows(step)] for step in reversed(range(batches.steps))]
    assert forward == backward[::-1]


def test_derived_seeds_fit_a_generator_and_keep_parts_apart() -> None:
    seeds = {derived_seed("a", i, j) for i in range(20) for j in range(20)} | {derived_seed("a", 11, 1, 1)}
    assert len(seeds) == 401
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_learning_rate() -> None:
    rates = [learning_rate(step, steps=100, warmup=10, highest=1.0, lowest=0.1) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0.1 < rates[-1] < 0.101
    assert rates[55] == pytest.approx(0.55)
    assert learning_rate(0, steps=1, warmup=0, highest=2.0, lowest=0.0) == 2.0


def test_learning_rate_with_a_cosine_from_the_start() -> None:
    rates = [learning_rate(step, steps=100, warmup=9.5, highest=1.0, cosine_from="start") for step in range(100)]
    assert rates[4] == pytest.approx(5 / 9.5 * 0.5 * (1 + math.cos(0.04 * math.pi)))
    assert rates[50] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(0, steps=4, warmup=0, highest=2.0, cosine_from="start") == 2.0
