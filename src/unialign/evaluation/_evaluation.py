"""Result of an evaluation, with intervals and formatted output."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_choice
from unialign._html import html_table
from unialign._plain_text import percent
from unialign.batch import Batch
from unialign.errors import MissingDependencyError
from unialign.evaluation._chance import mean_chance
from unialign.evaluation._metrics import METRICS, Metric, all_metrics, metric_range
from unialign.evaluation._statistics import Statistic, resample
from unialign.geometry import drawn_places, principal_map
from unialign.metrics import Interval, codes, percentile_interval

if TYPE_CHECKING:
    from unialign.report import Plot

__all__ = ["Evaluation", "map_rows"]

_PRIMARY = tuple(name for name, metric in METRICS.items() if metric.primary)
# Metrics shown in addition to the primary metrics.
_SECONDARY = ("recall@10", "median_rank", "true_pair_cosine", "effective_rank", "zeta_neg", "chi")


class MapRows(NamedTuple):
    """Rows that `Evaluation.plot_map` shows."""

    numbers: list[int]
    z: dict[str, Tensor]
    present: dict[str, Tensor]


def map_rows(batch: Batch, numbers_N: NDArray[np.int64]) -> MapRows:
    """Select the rows to show on a map from evaluated items with these row numbers."""
    places_d = drawn_places(len(numbers_N), len(batch.names))
    at_d = torch.from_numpy(places_d)
    return MapRows(
        numbers_N[places_d].tolist(),
        {name: batch.z_MBD[m][at_d].double() for m, name in enumerate(batch.names)},
        {name: batch.present_MB[m][at_d] for m, name in enumerate(batch.names)},
    )


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        metrics: name -> value; see `METRICS` for descriptions. Metrics whose inputs are missing, such as labels, are
            omitted.
        directions: `"a->b"` -> metrics of that direction; the joint directions `"a+b->c"` and `"c->a+b"` are scored by
            centroid.
        statistics: name -> the metric as a function of item weights.
        items: N, or the number n of sampled items.
        population: N if the items are a sample of N items, else None.
        shown: rows of `plot_map`.
    """

    metrics: dict[str, float]
    directions: dict[str, dict[str, float]]
    statistics: dict[str, Statistic]
    items: int
    population: int | None = None
    shown: MapRows | None = None

    @property
    def chance(self) -> dict[str, float]:
        """Chance level of R@1, and of joint R@1 with each score, by the name of the metric."""
        return mean_chance(self.directions)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per metric and direction, and one row per metric for the mean.

        Columns: `direction` ("all" for means), `metric`, `value`. `frame.pivot(index="direction", columns="metric")`
        gives one column per metric.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError:
            raise MissingDependencyError("to_frame needs: pip install 'unialign[pandas]'") from None
        rows = [("all", metric, value) for metric, value in self.metrics.items()]
        rows += [(name, metric, value) for name, values in self.directions.items() for metric, value in values.items()]
        return pandas.DataFrame(rows, columns=["direction", "metric", "value"])

    def plot_map(self) -> "Plot":
        """Return a map of up to 2,400 evaluated rows on their two principal axes.

        Notebooks display the map, and `save` writes it as SVG.

        Raises:
            DataError: there is no map, since fewer than 3 items were evaluated.
        """
        from unialign.report import plot_map

        found = {} if self.shown is None else principal_map(self.shown.z, self.shown.present)
        return plot_map({"rows": self.shown.numbers, **found} if self.shown is not None and found else {})

    def plot_recall(self) -> "Plot":
        """Return a heat map of the R@1 of each direction, which notebooks display and `save` writes as SVG."""
        from unialign.report import plot_recall

        return plot_recall({name: values["recall@1"] for name, values in self.directions.items()})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self.metrics[name]:.4g}" for name in _PRIMARY if name in self.metrics)
        return f"Evaluation(items={self.items}, directions={len(self.directions)}, {shown})"

    def text(self) -> str:
        """Return the main metrics, one per line, and a legend that defines them."""
        lines = [f"{label:<32}{value}" for label, value, _ in self._shown()]
        if self.population is not None:
            lines.append(
                f"measured on a sample of {self.items:,} of {self.population:,} items; intervals reflect sampling"
            )
        lines += ["", *(f"{label.removesuffix(', %')}: {description}" for label, _, description in self._shown())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shown = self._shown()
        titles = [description for _, _, description in shown]
        return html_table([row[:2] for row in shown], titles=titles, caption=f"{self.items} items")

    def _shown(self) -> list[tuple[str, str, str]]:
        metrics = all_metrics()
        names = [name for name in metrics if name in (*_PRIMARY, *_SECONDARY) or name not in METRICS]
        return [
            (_label(metrics[name]), self._value(name, metrics[name]), metrics[name].description)
            for name in names
            if name in self.metrics
        ]

    def _value(self, name: str, metric: Metric) -> str:
        chance = f" (chance {percent(self.chance[name])})" if name in self.chance else ""
        if self.population is not None:
            found = self.sampling_interval(name)
            chance += f" [{_written(metric, found.low)}, {_written(metric, found.high)}]"
        return _written(metric, self.metrics[name]) + chance

    def interval(
        self, metric: str, *, level: float = 0.95, resamples: int = 1000, seed: int = 0, groups: object = None
    ) -> Interval:
        """Compute the bootstrap interval of a metric over items, or over (N,) `groups` of items, which are resampled
        together.

        The bootstrap resamples queries against the fixed gallery. Median rank, raw gap, uniformity and effective rank
        do not support item weights, so the intervals of these metrics have zero width. Intervals are clipped to the
        range of the metric.

        Raises:
            ConfigError: an unknown metric.
        """
        return self._interval(metric, 1.0, level=level, resamples=resamples, seed=seed, groups=groups)

    def sampling_interval(
        self, metric: str, *, level: float = 0.95, resamples: int = 1000, seed: int = 0, groups: object = None
    ) -> Interval:
        """Compute the interval of a metric for all N items when only a sample of n items was measured.

        The deviations in `interval` are multiplied by the finite population correction sqrt((N - n) / (N - 1))
        (Cochran, 1977, "Sampling techniques", section 2.6). If all items were measured, the interval has zero width.

        Raises:
            ConfigError: an unknown metric.
        """
        total = self.items if self.population is None else self.population
        factor = ((total - self.items) / max(1, total - 1)) ** 0.5
        return self._interval(metric, factor, level=level, resamples=resamples, seed=seed, groups=groups)

    def _interval(
        self, metric: str, factor: float, *, level: float, resamples: int, seed: int, groups: object
    ) -> Interval:
        check_choice("metric", metric, self.statistics)
        estimate = self.metrics[metric]
        drawn = self.items if groups is None else codes(groups, "groups", rows=self.items)
        values = resample({metric: (self.statistics[metric], estimate)}, drawn, resamples=resamples, seed=seed)
        values_R = values[metric] if factor == 1 else estimate + factor * (values[metric] - estimate)
        found = percentile_interval(values_R, level, estimate=estimate)
        least, most = metric_range(metric)
        return Interval(estimate, min(max(found.low, least), most), min(max(found.high, least), most))


def _label(metric: Metric) -> str:
    return metric.label + (" (lower is better)" if metric.better == "lower" else "")


def _written(metric: Metric, value: float) -> str:
    if metric.unit == "percent":
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
