"""Test the measured overlaps, the extrapolation to the whole index, and the verdict."""

import numpy as np
import pytest
from migration_cases import new_rows, overlap, sample, unit

from unialign.migration import Level, OverlapInterval, bridge
from unialign.migration._interval import estimate_overlap
from unialign.migration._overlap import OverlapCurve, _first_columns, measure_overlap
from unialign.migration._verdict import decide, level_reasons


def shares(true, mapped, k, width):
    found = []
    for a, b in zip(np.argsort(-true, 1, "stable"), np.argsort(-mapped, 1, "stable"), strict=True):
        found.append((len(set(a[:k]) & set(b[:k])) / k, len(set(a[:k]) & set(b[: width * k])) / k))
    return np.array(found)


def test_overlaps_equal_sets():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((9, 40))
    mapped = true + rng.standard_normal((9, 40))
    curve = measure_overlap(true, mapped, width=3, seed=0)
    for k in (1, 2, 3, 5, 7, 10, 15, 20, 30):
        point = (curve.cutoffs == k) & (curve.sizes == 40)
        expected = shares(true, mapped, k, 3)
        np.testing.assert_allclose(curve.overlap[point][0], expected[:, 0])
        np.testing.assert_allclose(curve.contained[point][0], expected[:, 1])
        assert curve.at(k) == pytest.approx(expected[:, 0].mean())
    assert set(curve.sizes) == {40, 20, 10}


@pytest.mark.parametrize("count", [1, 7, 60, 200])
def test_the_first_columns_of_equal_scores_are_in_their_order(count):
    scores = np.random.default_rng(0).integers(0, 9, (5, 200)).astype(float)
    scores[:, 3] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(_first_columns(scores, count), expected)


def test_small_galleries_are_random_samples_of_the_pairs():
    rng = np.random.default_rng(1)
    true = rng.standard_normal((400, 60))
    mapped = true + rng.standard_normal((400, 60))
    curve = measure_overlap(true, mapped, width=1, seed=0)
    expected = []
    for seed in range(60):
        chosen = np.random.default_rng(100 + seed).permutation(60)[:15]
        expected.append(shares(true[:, chosen], mapped[:, chosen], 3, 1)[:, 0].mean())
    point = (curve.cutoffs == 3) & (curve.sizes == 15)
    assert curve.overlap[point].mean() == pytest.approx(np.mean(expected), abs=0.03)


def planted_curve(slope, small, level, pairs=240, queries=300):
    """Return a curve that follows the model without noise."""
    points = [(k, size) for size in (pairs, pairs // 2, pairs // 4) for k in (1, 2, 3, 5, 7, 10)]
    k, m = (np.array(column) for column in zip(*points, strict=True))
    p = k / m
    logit = level + slope * np.log(p) + small * k**-0.5
    values = p + (1 - p) / (1 + np.exp(-logit))
    return OverlapCurve(k, m, np.repeat(values[:, None], queries, 1), np.repeat(values[:, None], queries, 1))


@pytest.mark.parametrize(("slope", "small"), [(0.0, -0.33), (0.06, -0.5), (0.25, -0.76)])
def test_the_interval_holds_the_model_of_the_extrapolation(slope, small):
    """The free fit follows a steep curve, so the interval is wider than that of a typical curve."""
    curve = planted_curve(slope, small, 0.4)
    for items in (1000, 10_000, 100_000):
        found = estimate_overlap(curve, curve.overlap, items)
        p = 10 / items
        truth = p + (1 - p) / (1 + np.exp(-(0.4 + slope * np.log(p) + small * 10**-0.5)))
        assert found.low < truth < found.high
        assert found.low < found.estimate < found.high
        if slope == 0:
            assert found.high - found.low < 0.18


def test_the_interval_is_narrower_with_more_queries_and_pairs():
    rng = np.random.default_rng(0)

    def width(pairs, queries):
        true = rng.standard_normal((queries, pairs))
        curve = measure_overlap(true, true + 0.5 * rng.standard_normal((queries, pairs)), width=1, seed=0)
        found = estimate_overlap(curve, curve.overlap, 10_000)
        return found.high - found.low

    assert width(240, 400) < width(240, 30) < width(32, 30)


def test_perfect_and_useless_maps_stay_in_bounds():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((50, 100))
    curve = measure_overlap(true, true, width=10, seed=0)
    best = estimate_overlap(curve, curve.overlap, 5000)
    assert best.estimate > 0.99
    assert best.high == 1.0
    curve = measure_overlap(true, -true, width=10, seed=0)
    worst = estimate_overlap(curve, curve.overlap, 5000)
    assert worst.low < 0.01
    assert worst.estimate < 0.02
    assert estimate_overlap(curve, curve.contained, 5000, width=10).estimate < 0.1


def interval(value):
    return OverlapInterval(value, value - 0.05, min(1.0, value + 0.05), value, 240, 240)


@pytest.mark.parametrize(
    ("same", "contained", "verdict"),
    [
        (1.0, 1.0, "switch now"),
        (0.96, 1.0, "switch with C = 60"),
        (0.94, 1.0, "switch with C = 60"),
        (0.5, 0.76, "switch with C = 60"),
        (0.5, 0.74, "re-embed or stay"),
        (0.1, 0.2, "re-embed or stay"),
    ],
)
def test_verdicts_and_their_thresholds(same, contained, verdict):
    found, reasons = decide(interval(same), interval(contained), goal=0.95, candidates=60)
    assert found == verdict
    assert f"{100 * same:.0f} % (between {100 * same - 5:.0f} %" in reasons[0]
    assert "first 60 candidates" in reasons[1]
    assert ("The lower end of the interval is below the goal" in " ".join(reasons)) == (same == 0.96)
    assert "undecided" not in " ".join(reasons)


def test_the_lower_end_must_reach_the_goal():
    near = OverlapInterval(0.96, 0.94, 0.98, 0.96, 240, 240)
    verdict, reasons = decide(near, near, goal=0.95, candidates=60)
    assert verdict == "switch with C = 60"
    assert any(reason.startswith("The mapped ranking alone may miss the goal") for reason in reasons)
    assert decide(near, near, goal=0.94, candidates=60)[0] == "switch now"


@pytest.mark.parametrize("contained", [0.2, 0.9])
@pytest.mark.parametrize(
    ("pairs", "half", "more", "cause"),
    [
        (54, 0.1, 186, "54 pairs are too few"),
        (200, 0.21, 200, "200 pairs are too few"),
        (300, 0.21, 300, "an interval is wider than 40 points"),
    ],
)
def test_few_pairs_or_a_wide_interval_are_undecided(pairs, half, more, cause, contained):
    found = OverlapInterval(0.5, 0.5 - half, 0.5 + half, 0.5, pairs, 200)
    _, reasons = decide(found, interval(contained), goal=0.95, candidates=100)
    assert cause in reasons[-1]
    assert f"Embed {more} more random rows" in reasons[-1]
    assert f"`--plan {more}`" in reasons[-1]
    assert "does not improve much" not in " ".join(reasons)
    enough = OverlapInterval(0.5, 0.4, 0.6, 0.5, 240, 200)
    _, reasons = decide(enough, interval(0.2), goal=0.95, candidates=100)
    assert "does not improve much" in reasons[-1]
    # A switch is decided by the lower end, so few pairs suffice.
    sure = OverlapInterval(0.99, 0.98, 1.0, 0.99, 54, 200)
    verdict, reasons = decide(sure, sure, goal=0.95, candidates=100)
    assert verdict == "switch now"
    assert "undecided" not in " ".join(reasons)


def test_the_reasons_state_that_the_old_model_is_better():
    known = Level("recall@10 of known items", 0.8, 0.6, 0.9, 200)
    labels = Level("precision@10 of labels", 0.8, 0.6, None, 200)
    for verdict in ("switch now", "re-embed or stay"):
        for level in (known, labels):
            assert f"Staying with the old model is better than the bridge for {level.task}." in level_reasons(
                (level,), verdict
            )
    for level, bound in ((known, "can reach 90.0 % at most"), (labels, "is not measured, so test it")):
        _, reason = level_reasons((level,), "switch with C = 100")
        assert reason.startswith(f"The old model is better than the mapped ranking for {level.task}.")
        assert bound in reason
    beyond = Level("recall@10 of known items", 0.95, 0.6, 0.9, 200)
    assert "Staying with the old model is better" in level_reasons((beyond,), "switch with C = 100")[1]
    assert len(level_reasons((Level("recall@10", 0.6, 0.6, 0.9, 200), Level("p", None, 0.1, None, 9)), "switch")) == 2


@pytest.mark.slow
def test_intervals_hold_the_truth_on_planted_indexes():
    """Rows without clusters are the hardest case, because their overlap falls with the size of the index."""
    held, widths = [], []
    for seed in range(0, 20, 2):
        rng = np.random.default_rng(seed)
        z = new_rows(items=4000, dim=32 + 8 * (seed % 4), seed=seed)
        rows, queries = z[:3600], z[3600:]
        noise = (0.2, 0.4, 0.8, 1.2)[seed // 5]
        old = unit(rows + noise * rng.standard_normal(rows.shape) / np.sqrt(rows.shape[1]))
        pairs = sample(len(rows), 240, seed)
        found = bridge(old, rows[pairs], pairs=pairs, queries=queries[:200])
        alone = bridge(old, rows[pairs], pairs=pairs, methods=[found.method])
        truth = overlap(queries[200:], rows, found.apply())
        for one in (found.overlap, alone.overlap):
            held.append(one.low <= truth <= one.high)
            widths.append(one.high - one.low)
            assert one.low - 0.03 <= truth <= one.high + 0.03
    assert np.mean(held) >= 0.75
    assert np.mean(widths) < 0.17
