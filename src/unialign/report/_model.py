"""Data classes for the content of `results.json`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unialign.evaluation import mean_chance


@dataclass(frozen=True)
class MetricInfo:
    key: str
    label: str
    description: str
    higher_is_better: bool | None  # None: neither direction is better
    percent: bool
    primary: bool


@dataclass(frozen=True)
class ObjectiveInfo:
    key: str
    label: str
    note: str
    settings: Mapping[str, Any]
    parameters: int | None


@dataclass(frozen=True)
class Run:
    objective: str
    seed: int
    metrics: Mapping[str, float]
    directions: Mapping[str, Mapping[str, float]]
    seconds: float | None
    warnings: tuple[Mapping[str, Any], ...]  # code, message and step of each health monitor warning
    folder: str


@dataclass(frozen=True)
class MetricEstimate:
    """Values missing in the file are NaN."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class MetricComparison:
    """`difference` is objective minus baseline."""

    metric: str
    objective: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class DataInfo:
    name: str
    fingerprint: str
    items: int | None
    modalities: tuple[str, ...]
    split: str = ""
    test_items: int | None = None
    synthetic: frozenset[str] = frozenset()
    description: str = ""
    sources: tuple[str, ...] = ()
    encoders: Mapping[str, str] = field(default_factory=dict)  # modality -> encoder of its features, if known

    @property
    def is_whole(self) -> bool:
        """Whether all items were evaluated, so that the data has no separate training items."""
        return self.items is not None and self.items == self.test_items

    def display_name(self, modality: str) -> str:
        return f"{modality} (synthetic)" if modality in self.synthetic else modality


@dataclass(frozen=True)
class ComparisonResults:
    environment: Mapping[str, Any]
    protocol: Mapping[str, Any]
    data: DataInfo
    objectives: Mapping[str, ObjectiveInfo]
    metrics: Mapping[str, MetricInfo]
    runs: tuple[Run, ...]
    summary: Mapping[str, Mapping[str, MetricEstimate]]
    comparisons: tuple[MetricComparison, ...]
    reproduce: str

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def level(self) -> str:
        bootstrap = self.protocol.get("bootstrap")
        level = number(bootstrap.get("level")) if isinstance(bootstrap, Mapping) else math.nan
        return f"{100 * (0.95 if math.isnan(level) else level):g} %"

    @property
    def single(self) -> bool:
        return len(self.objectives) == 1

    def estimate(self, objective: str, metric: str) -> MetricEstimate:
        """Return the mean and interval; the bounds are NaN for a single seed and a metric without item weights."""
        found = self.summary.get(objective, {}).get(metric, MetricEstimate(math.nan))
        # A zero-width interval from a single measurement would be mistaken for certainty.
        certain = len(self.seeds) == 1 and found.high - found.low <= 1e-9 * max(abs(found.mean), 1e-9)
        return MetricEstimate(found.mean) if certain else found

    @property
    def anchor(self) -> str:
        settings = next(iter(self.objectives.values())).settings
        options = settings.get("objective_options")
        places = (self.protocol, settings, options if isinstance(options, Mapping) else {})
        return next((str(place["anchor"]) for place in places if place.get("anchor")), "")

    def chance(self, metric: str) -> float:
        """Return the chance level; NaN for metrics other than R@1, and for files without chance levels."""
        return mean_chance(self.runs[0].directions).get(metric, math.nan)

    def runs_of(self, objective: str) -> list[Run]:
        return sorted((run for run in self.runs if run.objective == objective), key=lambda run: run.seed)


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
