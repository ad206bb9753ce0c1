"""Result of a probe: predictions, accuracies and their bootstrap intervals.

Shapes: `n` classified items, `s` of them with a label, `C` classes, `k` places, `R` resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign._html import html_table
from unialign._plain_text import count, percent, table_lines
from unialign.errors import DataError
from unialign.metrics import Interval, codes, percentile_interval, weight_blocks, weighted_mean

# Name of a metric -> its description.
METRICS = {
    "top1": "fraction of items whose class has the highest score",
    "top5": "fraction of items whose class is among the five highest scores",
    "class_mean": "mean over the classes of the test items of the fraction of correct items",
}


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult:
    """Result of a probe. Tensors are on the CPU.

    Attributes:
        task: "zero_shot", "linear" or "knn".
        classes: names or numbers of the C classes that can be predicted, in the order of the class numbers.
        rows: (n,) int64, input row of each classified item, ascending.
        predictions: (n,) int64, number of the class with the highest score; the first of tied classes.
        top: (n, min(5, C)) int64, numbers of the classes with the highest scores, best first.
        labels: (n,) int64, number of the class of each item; -1 for unlabeled items. Numbers from C on are the classes
            `unknown`. None: no labels were given.
        hits: "top1" and, with more than five classes, "top5" -> (n,) float64 probability that the class of the item is
            found, which is a fraction only for tied scores; NaN for unlabeled items.
        settings: settings of the probe, such as the chosen `C`.
        validation: the tried settings with their accuracy (top1) on the validation items; empty if nothing was chosen.
        unknown: classes of the labels that cannot be predicted, since they have no training item. Their items count as
            errors.
        counts: numbers of items, such as `train` or `test`.
    """

    task: str
    classes: tuple[Any, ...]
    rows: Tensor
    predictions: Tensor
    top: Tensor
    labels: Tensor | None = None
    hits: dict[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    validation: Sequence[Mapping[str, Any]] = ()
    unknown: tuple[Any, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    _groups: Tensor | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracies by name: `top1`, `top5` (with more than five classes) and `class_mean`; empty without labels."""
        if not self.hits:
            return {}
        ones_1s = torch.ones(1, len(self._scored()), dtype=torch.float64)
        return {name: float(self._values(name, ones_1s)) for name in self._names()}

    @property
    def chance(self) -> float:
        """Accuracy of a random class, 1 / C."""
        return 1 / len(self.classes)

    @property
    def majority(self) -> float:
        """Fraction of the most frequent class among the labeled items, the accuracy of a constant prediction."""
        labels_s = self._labels_s()
        return float(torch.unique(labels_s, return_counts=True)[1].max()) / len(labels_s)

    def interval(
        self, metric: str = "top1", *, level: float = 0.95, resamples: int = 2000, seed: int = 0, groups: Any = None
    ) -> Interval:
        """Compute the percentile bootstrap interval of a metric over the labeled items, for a fixed classifier.

        Args:
            metric: a key of `metrics`.
            level: in (0, 1).
            resamples: number R of resamples.
            seed: seed of the resamples, which are shared by all metrics, and by probes of the same items.
            groups: (N,) labels of the input rows; items of a group are resampled together. None: the groups of the
                call, if any.

        Raises:
            ConfigError: unknown metric, or an option is out of range.
            DataError: no labels were given.
            ShapeError: groups are not (N,) labels.
        """
        check_choice("metric", metric, self._names())
        values_R = self._resampled(metric, resamples=resamples, seed=seed, groups=groups)
        return percentile_interval(values_R, level, estimate=self.metrics[metric])

    def per_class(self) -> list[dict[str, Any]]:
        """Return one record per class of the labeled items: its name, number of items, accuracy (top1), and the class
        that is predicted most often in its place, if any.
        """
        labels_s, top1_s = self._labels_s(), self.hits["top1"][self._scored()]
        predictions_s = self.predictions[self._scored()]
        records = []
        for number in torch.unique(labels_s).tolist():
            mine_s = labels_s == number
            wrong = predictions_s[mine_s & (predictions_s != labels_s)]
            confused = int(torch.bincount(wrong).argmax()) if len(wrong) else None
            records.append(
                {
                    "class": (*self.classes, *self.unknown)[number],
                    "items": int(mine_s.sum()),
                    "top1": float(top1_s[mine_s].mean()),
                    "confused_with": None if confused is None else self.classes[confused],
                }
            )
        return records

    def to_dict(self, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
        """Return the settings, counts and accuracies with 95 % intervals, as JSON values."""
        found: dict[str, Any] = {
            "task": self.task,
            "classes": len(self.classes),
            "counts": dict(self.counts),
            "settings": dict(self.settings),
            "validation": [dict(record) for record in self.validation],
        }
        if not self.hits:
            return found
        intervals = {name: self.interval(name, resamples=resamples, seed=seed) for name in self._names()}
        metrics = {name: {"mean": i.estimate, "low": i.low, "high": i.high} for name, i in intervals.items()}
        return found | {
            "metrics": metrics,
            "chance": self.chance,
            "majority": self.majority,
            "per_class": self.per_class(),
        }

    def text(self, *, resamples: int = 2000, seed: int = 0) -> str:
        """Return the accuracies with 95 % intervals and the settings, for a terminal."""
        chosen = ", ".join(f"{name} {_written(value)}" for name, value in self.settings.items())
        lines = [f"{self.task.replace('_', '-')}: {count(len(self.classes), 'class', 'classes')}, {chosen}"]
        lines.append(", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in self.counts.items()))
        if self.hits:
            found = [(name, self.interval(name, resamples=resamples, seed=seed)) for name in self._names()]
            body = [
                (name, f"{percent(i.estimate)} [{100 * i.low:.1f}, {100 * i.high:.1f}]", METRICS[name])
                for name, i in found
            ]
            lines += ["", *table_lines(("metric", "value [95 %]", "description"), body)]
            lines += ["", f"chance {percent(self.chance)}; most frequent class {percent(self.majority)}"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        found = ", ".join(f"{name}={value:.4f}" for name, value in self.metrics.items())
        return f"ProbeResult({self.task!r}, classes={len(self.classes)}, items={len(self.rows)}, {found})"

    def _repr_html_(self) -> str:
        rows = [[name, percent(value)] for name, value in self.metrics.items()]
        return html_table(rows, titles=[METRICS[name] for name in self.metrics], caption=self.task.replace("_", "-"))

    def _names(self) -> list[str]:
        return [*self.hits, "class_mean"] if self.hits else []

    def _scored(self) -> Tensor:
        """Return the (s,) places of the labeled items among the n items."""
        if self.labels is None:
            raise DataError("the probe was called without labels, so it has no accuracy; pass labels")
        return (self.labels != -1).nonzero().flatten()

    def _labels_s(self) -> Tensor:
        places_s = self._scored()
        assert self.labels is not None
        return self.labels[places_s]

    def _resampled(self, metric: str, *, resamples: int, seed: int, groups: Any) -> Tensor:
        places_s = self._scored()
        group_s = None if self._groups is None else self._groups[places_s]
        if groups is not None:
            group_s = codes(groups, "groups")[self.rows[places_s]]
        drawn = len(places_s) if group_s is None else group_s
        blocks = weight_blocks(drawn, resamples=resamples, seed=seed)
        return torch.cat([self._values(metric, weights_Rs) for weights_Rs in blocks])

    def _values(self, metric: str, weights_Rs: Tensor) -> Tensor:
        if metric != "class_mean":
            return weighted_mean(self.hits[metric][self._scored()], weights_Rs)
        # Classes without an item in a resample are left out of its mean.
        class_s = codes(self._labels_s(), "labels")
        sums_RC, totals_RC = (weights_Rs.new_zeros(len(weights_Rs), int(class_s.max()) + 1) for _ in range(2))
        sums_RC.index_add_(1, class_s, weights_Rs * self.hits["top1"][self._scored()])
        totals_RC.index_add_(1, class_s, weights_Rs)
        return torch.where(totals_RC > 0, sums_RC / totals_RC.clamp(min=1e-12), torch.nan).nanmean(1)


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{len(value)} values" if len(value) > 3 else " | ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
