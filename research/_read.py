"""Read values from the content of a study's results.json."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unialign._plain_text import count

__all__ = [
    "GEOMETRY",
    "PRIMARY",
    "Results",
    "as_float",
    "completed",
    "evaluations",
    "family_tests",
    "label",
    "mean_of",
    "mean_recall",
    "metric_label",
    "primary_metrics",
    "run_metric",
    "runs_of",
    "scale_of",
    "seed_count",
]

Results = Mapping[str, Any]
PRIMARY = ("recall@1", "joint_recall@1", "label_map", "v_measure", "modality_gap_debiased")
# The metrics of retrieval, labels and geometry, in the order of the panels.
GEOMETRY = (*PRIMARY, "true_pair_cosine")


def seed_count(results: Results) -> str:
    return count(len(results["protocol"]["seeds"]), "seed")


def as_float(value: float | None) -> float:
    """None represents NaN in JSON."""
    return math.nan if value is None else value


def label(results: Results, arm: str) -> str:
    return str(results["objectives"][arm]["label"])


def completed(results: Results, arms: Iterable[str] | None = None) -> list[str]:
    return [arm for arm in (results["study"]["factors"] if arms is None else arms) if arm in results["summary"]]


def runs_of(results: Results, arm: str) -> list[Mapping[str, Any]]:
    return [run for run in results["runs"] if run["objective"] == arm]


def run_metric(results: Results, arm: str, metric: str) -> list[float]:
    return [as_float(run["metrics"].get(metric)) for run in runs_of(results, arm)]


def mean_of(results: Results, arm: str, metric: str) -> float:
    return as_float(results["summary"].get(arm, {}).get(metric, {}).get("mean"))


def mean_recall(results: Results, arm: str, directions: Sequence[tuple[str, str]]) -> list[float]:
    found = []
    for run in runs_of(results, arm):
        values = [as_float(run["directions"].get(f"{q}->{a}", {}).get("recall@1")) for q, a in directions]
        found.append(math.fsum(values) / len(values) if values else math.nan)
    return found


def evaluations(results: Results, arm: str, name: str) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for run in runs_of(results, arm):
        for evaluation in run.get("evaluations", ()):
            found.setdefault(int(evaluation["step"]), []).append(as_float(evaluation.get(name)))
    return found


def primary_metrics(results: Results) -> list[str]:
    return [name for name, about in results["metrics"].items() if about["primary"]]


def metric_label(results: Results, metric: str) -> str:
    about = results["metrics"][metric]
    return str(about["label"]) + (", %" if about["unit"] == "percent" else "")


def scale_of(results: Results, metric: str) -> int:
    return 100 if results["metrics"][metric]["unit"] == "percent" else 1


def family_tests(results: Results, family: str) -> list[Mapping[str, Any]]:
    return [test for test in results["comparisons"] if test.get("family") == family and "verdict" in test]
