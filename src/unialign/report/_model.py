"""What `results.json` says, typed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MetricComparison", "DataInfo", "Estimate", "MetricInfo", "ObjectiveInfo", "Results", "Run", "WarningLine", "number"]


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is called, and how it is to be read."""

    key: str
    label: str
    description: str
    higher_is_better: bool | None  # None: neither direction is better
    percent: bool
    primary: bool


@dataclass(frozen=True)
class ObjectiveInfo:
    """One row of the tables: a label and how it was trained."""

    key: str
    label: str
    note: str
    settings: Mapping[str, Any]
    parameters: int | None


@dataclass(frozen=True)
class WarningLine:
    """A warning of the health monitor."""

    code: str
    message: str
    step: int | None


@dataclass(frozen=True)
class Run:
    """One objective with one seed."""

    objective: str
    seed: int
    metrics: Mapping[str, float]
    directions: Mapping[str, Mapping[str, float]]
    seconds: float | None
    warnings: tuple[WarningLine, ...]
    folder: str


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval; NaN where the file has no number."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricComparison:
    """One paired comparison; `difference` is objective minus rival."""

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
    """The data set and its evaluated split."""

    name: str
    fingerprint: str
    items: int | None
    modalities: tuple[str, ...]
    split: str
    test_items: int | None
    synthetic: frozenset[str]
    description: str
    sources: tuple[str, ...]
    made: Mapping[str, str]  # modality -> what made its features, where known

    def display_name(self, modality: str) -> str:
        """The modality's name as the page prints it: made-up channels say so everywhere."""
        return f"{modality} (synthetic)" if modality in self.synthetic else modality


@dataclass(frozen=True)
class Results:
    """The whole file."""

    environment: Mapping[str, Any]
    protocol: Mapping[str, Any]
    data: DataInfo
    objectives: Mapping[str, ObjectiveInfo]
    metrics: Mapping[str, MetricInfo]
    runs: tuple[Run, ...]
    summary: Mapping[str, Mapping[str, Estimate]]
    comparisons: tuple[MetricComparison, ...]
    reproduce: str

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def level(self) -> str:
        """The intervals' level, as "95 %"."""
        bootstrap = self.protocol.get("bootstrap")
        level = number(bootstrap.get("level")) if isinstance(bootstrap, Mapping) else math.nan
        return f"{100 * (0.95 if math.isnan(level) else level):g} %"

    @property
    def single(self) -> bool:
        """One objective: nothing is compared."""
        return len(self.objectives) == 1

    @property
    def interval_scope(self) -> str:
        """What the intervals are over."""
        return "items" if len(self.seeds) == 1 else "items and seeds"

    def estimate(self, objective: str, metric: str) -> Estimate:
        """Mean and interval; NaN ends where a single seed gives none, as for metrics without item weights."""
        found = self.summary.get(objective, {}).get(metric, Estimate(math.nan, math.nan, math.nan))
        # An interval without width says "certain" of what was measured once.
        if len(self.seeds) == 1 and found.high - found.low <= 1e-9 * max(abs(found.mean), 1e-9):
            return Estimate(found.mean, math.nan, math.nan)
        return found

    @property
    def anchor(self) -> str:
        """The modality that the protocol names, or else the first objective's settings; "" where neither does."""
        settings = next(iter(self.objectives.values())).settings
        options = settings.get("objective_options")
        places = (self.protocol, settings, options if isinstance(options, Mapping) else {})
        return next((str(place["anchor"]) for place in places if place.get("anchor")), "")

    def runs_of(self, objective: str) -> list[Run]:
        return sorted((run for run in self.runs if run.objective == objective), key=lambda run: run.seed)


def number(value: Any) -> float:
    """A float, NaN for anything that is not a number (JSON has null, True and strings in odd places)."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
