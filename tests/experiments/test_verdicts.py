"""Test the coverage of intervals and the error rates of verdicts."""

import pytest
import torch

from unialign.evaluation import Evaluation
from unialign.evaluation._statistics import DebiasedGap, ItemMean
from unialign.experiments._verdicts import compare_entries, summarize


def fake(scores_N):
    statistic = ItemMean(scores_N[None])
    return Evaluation({"recall@1": float(scores_N.mean())}, {}, {"recall@1": statistic}, len(scores_N))


def runs_of(draw, items, seeds, means, item_noise=1.0, seed_noise=0.0):
    item_N = item_noise * torch.randn(items, generator=draw, dtype=torch.float64)
    return {
        key: [
            fake(
                mean
                + item_N
                + seed_noise * torch.randn((), generator=draw, dtype=torch.float64)
                + 0.3 * torch.randn(items, generator=draw, dtype=torch.float64)
            )
            for _ in range(seeds)
        ]
        for key, mean in means.items()
    }


def test_summary_interval_covers_the_truth():
    draw = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        summary, _ = summarize(runs_of(draw, 60, 3, {"a": 0.0}, seed_noise=0.1), 60, resamples=400)
        hits += summary["a"]["recall@1"]["low"] <= 0 <= summary["a"]["recall@1"]["high"]
    assert 0.90 <= hits / 200 <= 0.99


def test_verdicts_without_a_difference_are_ties():
    draw = torch.Generator().manual_seed(1)
    ties = 0
    for _ in range(200):
        runs = runs_of(draw, 60, 3, {"a": 0.0, "b": 0.0})
        _, resampled = summarize(runs, 60, resamples=400)
        ties += compare_entries("a", runs, resampled)[0]["verdict"] == "tie"
    assert ties / 200 >= 0.88


def test_pairing_of_items_detects_a_difference():
    draw = torch.Generator().manual_seed(2)
    runs = runs_of(draw, 80, 3, {"a": 0.3, "b": 0.0}, item_noise=2.0)
    summary, resampled = summarize(runs, 80, resamples=400)
    record = compare_entries("a", runs, resampled)[0]
    assert record["verdict"] == "win"
    assert record["low"] > 0
    assert (
        summary["a"]["recall@1"]["low"] < summary["b"]["recall@1"]["high"]
    )  # The intervals overlap, although the paired difference is significant.


def test_seed_variance_widens_the_interval_by_its_standard_error():
    constant = {"a": [fake(torch.full((50,), value, dtype=torch.float64)) for value in (0.5, 0.51, 0.52)]}
    summary, _ = summarize(constant, 50, resamples=4000)
    half = (summary["a"]["recall@1"]["high"] - summary["a"]["recall@1"]["low"]) / 2
    assert half == pytest.approx(1.96 * 0.01 / 3**0.5, rel=0.06)


def test_intervals_stay_in_the_range_of_the_metric():
    nearly_all = {"a": [fake(torch.tensor([1.0] * 49 + [share], dtype=torch.float64)) for share in (0.0, 0.5, 1.0)]}
    summary, _ = summarize(nearly_all, 50, resamples=400)
    assert summary["a"]["recall@1"]["high"] == 1.0
    rarely_any = {"a": [fake(torch.tensor([0.0] * 49 + [share], dtype=torch.float64)) for share in (0.0, 0.5, 1.0)]}
    summary, _ = summarize(rarely_any, 50, resamples=400)
    assert summary["a"]["recall@1"]["low"] == 0.0


def test_lower_is_better_and_holm():
    draw = torch.Generator().manual_seed(3)
    runs = runs_of(draw, 80, 3, {"a": 0.3, "b": 0.0, "c": 0.0})
    for evaluations in runs.values():
        for evaluation in evaluations:
            for table in (evaluation.metrics, evaluation.statistics):
                table["modality_gap_debiased"] = table["recall@1"]
    _, resampled = summarize(runs, 80, resamples=999)
    records = compare_entries("a", runs, resampled)
    verdicts = {(record["baseline"], record["metric"]): record["verdict"] for record in records}
    assert verdicts["b", "recall@1"] == "win"
    assert verdicts["b", "modality_gap_debiased"] == "lose"
    assert all(record["p_holm"] >= record["p"] for record in records)


def gap_run(draw, items, shift, group_N):
    groups = int(group_N.max()) + 1
    noise = torch.randn(groups, 12, generator=draw, dtype=torch.float64)[group_N]
    x = torch.nn.functional.normalize(noise + 0.3 * torch.randn(items, 12, generator=draw, dtype=torch.float64), dim=1)
    y = torch.nn.functional.normalize(
        noise + 0.3 * torch.randn(items, 12, generator=draw, dtype=torch.float64) + shift, dim=1
    )
    statistic = DebiasedGap([(torch.arange(items), x, y)])
    point = float(statistic.evaluate(torch.ones(1, items, dtype=torch.float64)))
    return Evaluation({"modality_gap_debiased": point}, {}, {"modality_gap_debiased": statistic}, items)


@pytest.mark.parametrize("shift", [0.1, 0.5])
def test_resampling_does_not_bias_the_gap_interval(shift):
    """Regression test: repeated items increase the squared gap of each resample, which biased the interval."""
    draw, group_N = torch.Generator().manual_seed(4), torch.arange(90) // 3
    truth = gap_run(draw, 30000, shift, torch.arange(30000)).metrics["modality_gap_debiased"]
    hits = 0
    for _ in range(100):
        summary, _ = summarize({"a": [gap_run(draw, 90, shift, group_N)]}, group_N.numpy(), resamples=300)
        record = summary["a"]["modality_gap_debiased"]
        hits += record["low"] <= truth <= record["high"]
    assert hits / 100 >= 0.86
