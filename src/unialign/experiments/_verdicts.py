"""Compute intervals and verdicts from the evaluations of each entry and seed.

The seed variance of the mean is added with the correction S / (S - 1), since resampling three seeds would underestimate
the variance by a third.

Shapes: `R` resamples, `S` seeds, `N` items.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from unialign.evaluation import METRICS, Evaluation, all_metrics, metric_range, resample
from unialign.metrics import add_seed_variance, bootstrap_p_value, holm_correction, percentile_interval

LEVEL = 0.95
ALPHA = 1 - LEVEL


class Measured(Protocol):
    @property
    def metrics(self) -> Mapping[str, float]: ...


def summarize(
    runs: Mapping[str, Sequence[Evaluation]], items_or_groups: Any, *, resamples: int
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, dict[str, Tensor]]]:
    """Return entry -> metric -> {"mean", "low", "high"}, and entry -> metric -> (S, R) resampled values."""
    measured = {
        key: [metric for metric in all_metrics() if all(metric in e.statistics for e in evaluations)]
        for key, evaluations in runs.items()
    }
    values = resample(
        {
            (key, seed, metric): (evaluation.statistics[metric], evaluation.metrics[metric])
            for key, evaluations in runs.items()
            for seed, evaluation in enumerate(evaluations)
            for metric in measured[key]
        },
        items_or_groups,
        resamples=resamples,
    )
    resampled = {
        key: {
            metric: torch.stack([values[key, seed, metric] for seed in range(len(evaluations))])
            for metric in measured[key]
        }
        for key, evaluations in runs.items()
    }
    return {key: intervals(evaluations, resampled[key]) for key, evaluations in runs.items()}, resampled


def intervals(runs: Sequence[Measured], resampled: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Compute means and intervals of one entry's metrics from their (S, R) resampled values."""
    found = {}
    for metric, values_SR in resampled.items():
        points_S = torch.tensor([run.metrics[metric] for run in runs], dtype=torch.float64)
        low, high = percentile_interval(add_seed_variance(values_SR, points_S), LEVEL)
        least, most = metric_range(metric)
        low, high = max(low, least), min(high, most)
        mean = float(points_S.mean())
        found[metric] = {"mean": mean, "low": min(low, mean), "high": max(high, mean)}
    return found


def compare_entries(
    first: str,
    runs: Mapping[str, Sequence[Measured]],
    resampled: Mapping[str, Mapping[str, Tensor]],
) -> list[dict[str, Any]]:
    """Compare the first entry with every other entry on each shared metric that can be better or worse.

    Returns:
        Records with `metric`, `objective`, `baseline`, `difference` (first minus baseline), `low`, `high`, `p`,
        `higher_is_better`, and for primary metrics `p_holm` and `verdict` (`win`, `tie`, `lose`).
    """
    records: list[dict[str, Any]] = []
    for baseline in runs:
        if baseline == first:
            continue
        for metric, description in all_metrics().items():
            if description.better == "neither" or metric not in resampled[first] or metric not in resampled[baseline]:
                continue
            points_S = torch.tensor(
                [a.metrics[metric] - b.metrics[metric] for a, b in zip(runs[first], runs[baseline], strict=True)],
                dtype=torch.float64,
            )
            differences_SR = resampled[first][metric] - resampled[baseline][metric]
            difference_R = add_seed_variance(differences_SR, points_S)
            if bool(difference_R.isnan().all()):  # With few items, possibly no resample defines the metric for both.
                continue
            low, high = percentile_interval(difference_R, LEVEL)
            records.append(
                {
                    "metric": metric,
                    "objective": first,
                    "baseline": baseline,
                    "difference": float(points_S.mean()),
                    "low": low,
                    "high": high,
                    "p": bootstrap_p_value(difference_R),
                    "higher_is_better": description.better == "higher",
                }
            )
    _decide(records)
    return records


def _decide(records: list[dict[str, Any]]) -> None:
    """Add verdicts and corrected p-values; p-values outside the declared family remain uncorrected."""
    family = [record for record in records if (record["metric"] in METRICS and METRICS[record["metric"]].primary)]
    for record, corrected in zip(family, holm_correction([record["p"] for record in family]), strict=True):
        record["p_holm"] = corrected
        if corrected >= ALPHA:
            record["verdict"] = "tie"
        else:
            record["verdict"] = "win" if (record["difference"] > 0) == record["higher_is_better"] else "lose"
