"""What pages about a swept setting share: metrics as lines and tiles over it, numbers with intervals as text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from research._estimates import seed_interval
from research._figures import known, metric_label, number_style, runs_of
from research.pages import Mark, Panel, Place, Section, Series, Table, lines, tiles
from unialign.report import DASH

__all__ = [
    "GEOMETRY",
    "UNTUNED",
    "best_arm",
    "between",
    "directed",
    "failed_sections",
    "mean_of",
    "metric_lines",
    "metric_tiles",
    "over_seeds",
    "range_table",
]

Results = Mapping[str, Any]
# What the metrics of retrieval, meaning and geometry are, in the order of the panels.
GEOMETRY = ("recall@1", "joint_recall@1", "label_map", "v_measure", "modality_gap_debiased", "true_pair_cosine")
UNTUNED = "Nothing is tuned here: the settings themselves are what is varied."


def between(found: Mapping[str, float | None], *, scale: float = 1.0, decimals: int = 3) -> str:
    """`0.123 [0.110, 0.140]`, with a true minus; a dash where there is no number."""
    mean, low, high = (scale * known(found[key]) for key in ("mean", "low", "high"))
    if math.isnan(mean):
        return DASH
    text = f"{mean:.{decimals}f}"
    if not math.isnan(low):
        text += f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return text.replace("-", "−")


def failed_sections(results: Results) -> list[Section]:
    """Which arms did not train, where there are any."""
    failed = results["study"]["failed"]
    said = [f"{results['objectives'][arm]['label']}: {message}." for arm, message in failed.items()]
    return [Section("failed", "Arms that did not train", said)] if said else []


def mean_of(results: Results, arm: str, metric: str) -> float:
    """The mean of a metric over seeds; NaN for an arm or a metric that is not there."""
    return known(results["summary"].get(arm, {}).get(metric, {}).get("mean"))


def directed(results: Results, arm: str, wanted: Sequence[tuple[str, str]]) -> list[float]:
    """The mean R@1 over some directions (query, answer), one number a seed."""
    found = []
    for run in runs_of(results, arm):
        values = [known(run["directions"].get(f"{query}->{answer}", {}).get("recall@1")) for query, answer in wanted]
        found.append(math.fsum(values) / len(values) if values else math.nan)
    return found


def metric_lines(
    results: Results,
    arms: Mapping[Mark, Mapping[float, str]],
    metrics: Sequence[str],
    *,
    x_label: str,
    x_ticks: Sequence[float] | Mapping[float, str] | None = None,
) -> list[Panel]:
    """A panel a metric: for each mark, place on the axis -> arm. Bands are the intervals of the summary."""
    return [
        lines(
            metric_label(results, metric),
            [Series(mark, _places(results, places, metric)) for mark, places in arms.items()],
            x_label=x_label,
            x_ticks=x_ticks,
        )
        for metric in metrics
        if metric in results["metrics"]
    ]


def _places(results: Results, arms: Mapping[float, str], metric: str) -> list[Place]:
    scale = 100 if results["metrics"][metric]["unit"] == "percent" else 1
    places = []
    for x, arm in sorted(arms.items()):
        found = results["summary"].get(arm, {}).get(metric)
        if found is not None:
            mean, low, high = (scale * known(found[key]) for key in ("mean", "low", "high"))
            places.append(Place(x, mean, low, high))
    return places


def metric_tiles(
    results: Results,
    arms: Sequence[Sequence[str]],
    metrics: Sequence[str],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
) -> list[Panel]:
    """A panel a metric: means over seeds of a grid of arms."""
    panels = []
    for metric in metrics:
        if metric not in results["metrics"]:
            continue
        values = [[mean_of(results, arm, metric) for arm in row] for row in arms]
        look = number_style(results, metric, [arm for row in arms for arm in row if arm in results["summary"]])
        panels.append(
            tiles(
                metric_label(results, metric),
                rows,
                columns,
                values,
                row_label=row_label,
                column_label=column_label,
                write=look.bare,
            )
        )
    return panels


def best_arm(results: Results, arms: Sequence[str], metric: str) -> str | None:
    """The arm with the best mean of a metric; None where no arm has it."""
    sign = 1 if results["metrics"].get(metric, {}).get("higher_is_better") else -1
    there = [arm for arm in arms if not math.isnan(mean_of(results, arm, metric))]
    return max(there, key=lambda arm: sign * mean_of(results, arm, metric), default=None)


def range_table(
    results: Results, swept: Mapping[str, Mapping[str, str]], metrics: Sequence[str], *, first_column: str, note: str
) -> Table:
    """For each line of a sweep (name -> written setting -> arm) the best setting by each metric, and what it spans."""
    shown = [metric for metric in metrics if metric in results["metrics"]]
    rows = []
    for name, arms in swept.items():
        cells = []
        for metric in shown:
            best = best_arm(results, list(arms.values()), metric)
            if best is None:
                cells.append(DASH)
                continue
            look = number_style(results, metric, [arm for arm in arms.values() if arm in results["summary"]])
            means = [mean_of(results, arm, metric) for arm in arms.values()]
            low, high = min(m for m in means if not math.isnan(m)), max(m for m in means if not math.isnan(m))
            at = next(setting for setting, arm in arms.items() if arm == best)
            cells.append(f"{look.bare(mean_of(results, best, metric))} at {at}; {look.bare(low)} to {look.bare(high)}")
        rows.append([name, *cells])
    return Table([first_column, *(metric_label(results, metric) for metric in shown)], rows, note)


def over_seeds(values: Sequence[float | None], *, scale: float = 1.0, decimals: int = 3) -> str:
    """Mean and t-interval of one number a seed, as text."""
    return between(seed_interval(values), scale=scale, decimals=decimals)
