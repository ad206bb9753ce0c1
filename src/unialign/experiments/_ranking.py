"""Rank models by their scores, with paired intervals.

Every resample draws the same tasks or queries for all models. The p-value of a difference follows from Student's t test
with the bootstrap standard error and n - 1 degrees of freedom, where n is the number of tasks or, if queries are
resampled, the smallest number of queries of a task. The smallest possible p-value is set to 2^(1 - n), as in a sign
test with n differences. Holm's correction covers all pairs of models. The interval of a rank follows from the corrected
tests (Mogstad et al., Review of Economic Studies 2024).

Shapes: `M` models, `T` tasks, `Q` queries of a task, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_choice, check_integer, check_seed
from unialign._plain_text import count, join_words, table_lines
from unialign.errors import DataError
from unialign.experiments._score_table import ScoreTable
from unialign.experiments._student_t import quantile, two_sided_p
from unialign.metrics import holm_correction, resample_weights

Statistic = Literal["mean", "borda"]
Array = NDArray[np.float64]

LEVEL = 0.95
_NORMAL_QUANTILE = 1.959963984540054
_LISTED = 8


@dataclass(frozen=True)
class RankedModel:
    """A model in a ranking.

    Attributes:
        rank: 1 for the highest score; equal scores have equal ranks.
        score, low, high: the statistic with its 95 % interval.
        rank_low, rank_high: 95 % interval of the rank, simultaneous for all models.
        group: number of the group; the models of a group are not separable from its first model.
    """

    name: str
    rank: int
    score: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    group: int


@dataclass(frozen=True)
class PairedDifference:
    """Difference of the statistics of two models, with its 95 % interval and its plain and Holm-corrected p-values."""

    better: str
    worse: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def is_separable(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_holm < 1 - LEVEL


@dataclass(frozen=True)
class Ranking:
    """Models in the order of their scores.

    Attributes:
        models: the `RankedModel`s, best first.
        differences: differences between adjacent models, and between the best model and every other model.
        unit: resampled unit. "tasks" supports conclusions about similar tasks, and "queries" supports conclusions about
            the given tasks.
        statistic: "mean" is the mean score over tasks. "borda" is the mean over tasks of the fraction of the other
            models with a lower score.
        settings: number of tasks, queries and resamples, and the seed.
        notes: notes of the score table.
    """

    models: tuple[RankedModel, ...]
    differences: tuple[PairedDifference, ...]
    unit: str
    statistic: Statistic
    settings: dict[str, int]
    notes: tuple[str, ...]

    @property
    def groups(self) -> list[list[str]]:
        """Names of the models of each group, the best group first."""
        found: dict[int, list[str]] = {}
        for model in self.models:
            found.setdefault(model.group, []).append(model.name)
        return list(found.values())

    @property
    def answer(self) -> str:
        """One or two sentences that state which models are not separable from the best model."""
        first, *others = self.groups[0]
        tied = [*others[:_LISTED], *([f"{len(others) - _LISTED:,} more"] if len(others) > _LISTED else [])]
        adjacent = self.differences[: len(self.models) - 1]
        separable = sum(pair.is_separable for pair in adjacent)
        lead = (
            f"{first} has the highest score and is separable from every other model."
            if not others
            else f"{first} has the highest score, but is not separable from {join_words(tied)}."
        )
        tested = f"{separable} of {count(len(adjacent), 'pair')} of adjacent models can be separated"
        return f"{lead} {tested}, over {count(self.settings[self.unit], self.unit[:-1], self.unit)}."

    def text(self) -> str:
        """Return the answer and the table of models as plain text."""
        unit = 100.0
        body = [
            [
                f"{model.rank}",
                model.name,
                f"{unit * model.score:.2f} [{unit * model.low:.2f}, {unit * model.high:.2f}]",
                f"{model.rank_low} to {model.rank_high}" if model.rank_low < model.rank_high else f"{model.rank_low}",
                f"{model.group}",
            ]
            for model in self.models
        ]
        head = ["rank", "model", f"{self.statistic} score, % [95 %]", "rank, 95 %", "group"]
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([self.answer, "", *table_lines(head, body), *([""] if notes else []), *notes])

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as built-in types."""
        return {
            "answer": self.answer,
            "models": [asdict(model) for model in self.models],
            "differences": [asdict(pair) | {"is_separable": pair.is_separable} for pair in self.differences],
            "groups": self.groups,
            "unit": self.unit,
            "statistic": self.statistic,
            "settings": self.settings,
            "notes": list(self.notes),
        }


def rank_models(table: ScoreTable, *, statistic: Statistic = "mean", resamples: int = 2000, seed: int = 0) -> Ranking:
    """Rank the models of a table, with intervals and groups of models that are not separable.

    Queries are resampled within each task if their scores are known for every task, and tasks are resampled otherwise.

    Args:
        table: scores of at least two models, such as from `read_mteb`.
        statistic: "mean" averages scores, which may have different scales; "borda" averages ranks within tasks.
        resamples: number of bootstrap resamples, at least 100.
        seed: seed of the bootstrap.

    Raises:
        DataError: there are fewer than two models, or only one task and no scores of its queries.
        ConfigError: an option is out of range.
    """
    check_choice("statistic", statistic, ("mean", "borda"))
    check_integer("resamples", resamples, low=100)
    check_seed(seed)
    if len(table.models) < 2:
        raise DataError(f"a ranking needs at least two models, got {', '.join(table.models) or 'none'}")
    if not table.has_queries and len(table.tasks) < 2:
        raise DataError(
            f"{table.tasks[0]} is the only task, and the scores of its queries are not known, so there is no interval; "
            "add tasks, or predictions with the relevant documents"
        )
    points_M, values_RM, units = _resampled(table, statistic, resamples, seed)
    order_M = np.lexsort((np.arange(len(points_M)), -points_M))
    names = [table.models[m] for m in order_M]
    points_M, values_RM = points_M[order_M], values_RM[:, order_M]
    holm_MM, plain_MM = _tests(points_M, values_RM, units)
    # Scale the intervals to the quantile of Student's t distribution, which the tests also use.
    wide_RM = points_M + (values_RM - points_M) * (quantile((1 + LEVEL) / 2, units - 1) / _NORMAL_QUANTILE)
    low, high = (0.0, 1.0) if statistic == "borda" else _range(table.scores_MT)
    last = len(names) - 1
    pairs = [(m, m + 1) for m in range(last)] + [(0, m) for m in range(2, last + 1)]
    queries = sum(scores.shape[1] for scores in table.queries.values()) if table.has_queries else 0
    return Ranking(
        models=_ranked(names, points_M, wide_RM, holm_MM < 1 - LEVEL, (low, high)),
        differences=tuple(
            PairedDifference(
                names[a],
                names[b],
                *_paired(wide_RM, points_M, a, b, high - low),
                float(plain_MM[a, b]),
                float(holm_MM[a, b]),
            )
            for a, b in pairs
        ),
        unit="queries" if table.has_queries else "tasks",
        statistic=statistic,
        settings={"tasks": len(table.tasks), "queries": queries, "resamples": resamples, "seed": seed},
        notes=table.notes,
    )


def _range(scores_MT: Array) -> tuple[float, float]:
    """Return the range of scores: [0, 1] for fractions, [-1, 1] for correlations; otherwise unlimited or from 0."""
    least, largest = float(scores_MT.min()), float(scores_MT.max())
    if least >= -1 and largest <= 1:
        return (0.0 if least >= 0 else -1.0), 1.0
    return (0.0 if least >= 0 else -np.inf), np.inf


def _ranked(
    names: Sequence[str],
    points_M: Array,
    wide_RM: Array,
    separable_MM: NDArray[np.bool_],
    limits: tuple[float, float],
) -> tuple[RankedModel, ...]:
    low_M, high_M = (np.clip(bound_M, *limits) for bound_M in _interval(wide_RM))
    return tuple(
        RankedModel(
            name=name,
            rank=1 + int((points_M > points_M[m]).sum()),
            score=float(points_M[m]),
            low=float(low_M[m]),
            high=float(high_M[m]),
            rank_low=1 + int((separable_MM[m] & (points_M > points_M[m])).sum()),
            rank_high=len(names) - int((separable_MM[m] & (points_M < points_M[m])).sum()),
            group=group,
        )
        for m, (name, group) in enumerate(zip(names, _groups(separable_MM), strict=True))
    )


def _resampled(table: ScoreTable, statistic: Statistic, resamples: int, seed: int) -> tuple[Array, Array, int]:
    """Return resampled means, whose deviations are multiplied by sqrt(n / (n - 1)), since the standard deviation of a
    bootstrap mean is too small by this factor.
    """
    tasks = len(table.tasks)
    points_M = _statistic(table.scores_MT, statistic)
    if not table.has_queries:
        values_MT = table.scores_MT if statistic == "mean" else _borda(table.scores_MT)
        weights_RT = resample_weights(tasks, resamples=resamples, seed=seed).numpy() / tasks
        centered_RM = (weights_RT - 1 / tasks) @ values_MT.T
        return points_M, points_M + centered_RM * np.sqrt(tasks / (tasks - 1)), tasks
    sizes = [table.queries[task].shape[1] for task in table.tasks]
    if min(sizes) < 2:
        raise DataError(f"{table.tasks[int(np.argmin(sizes))]} has one query; at least two are needed for an interval")
    scores_RMT = np.empty((resamples, len(table.models), tasks))
    for t, task in enumerate(table.tasks):
        scores_MQ, size = table.queries[task], sizes[t]
        weights_RQ = resample_weights(size, resamples=resamples, seed=seed + t).numpy() / size
        deviation_RM = (weights_RQ - 1 / size) @ scores_MQ.T
        scores_RMT[:, :, t] = scores_MQ.mean(1) + deviation_RM * np.sqrt(size / (size - 1))
    values_RM = np.stack([_statistic(scores_MT, statistic) for scores_MT in scores_RMT])
    return points_M, values_RM - values_RM.mean(0) + points_M, min(sizes)


def _statistic(scores_MT: Array, statistic: Statistic) -> Array:
    return np.asarray((scores_MT if statistic == "mean" else _borda(scores_MT)).mean(1))


def _borda(scores_MT: Array) -> Array:
    """Return the fraction of the other models with a lower score, averaged over tasks; a tie adds one half."""
    above_MT = (scores_MT[:, None] > scores_MT[None]).sum(1)
    equal_MT = (scores_MT[:, None] == scores_MT[None]).sum(1) - 1
    return np.asarray((above_MT + 0.5 * equal_MT) / max(1, len(scores_MT) - 1))


def _tests(points_M: Array, values_RM: Array, units: int) -> tuple[Array, Array]:
    """Return Holm-corrected and plain p-values as symmetric (M, M) matrices."""
    count_models = len(points_M)
    plain_MM = np.ones((count_models, count_models))
    least = 2.0 ** (1 - min(units, 1000))
    for a in range(count_models - 1):
        error_m = (values_RM[:, a : a + 1] - values_RM[:, a + 1 :]).std(0)
        for b, error in zip(range(a + 1, count_models), error_m, strict=True):
            difference = abs(points_M[a] - points_M[b])
            # Differences of this size can result from rounding alone.
            t = 0.0 if difference <= 1e-12 else difference / error if error > 0 else np.inf
            plain_MM[a, b] = plain_MM[b, a] = max(two_sided_p(float(t), units - 1), least)
    rows, columns = np.triu_indices(count_models, 1)
    holm_MM = np.ones_like(plain_MM)
    holm_MM[rows, columns] = holm_MM[columns, rows] = holm_correction(plain_MM[rows, columns].tolist())
    return holm_MM, plain_MM


def _groups(separable_MM: NDArray[np.bool_]) -> list[int]:
    """Return the group of each model; a model separable from the first model of a group starts the next group."""
    groups: list[int] = []
    first = 0
    for m in range(len(separable_MM)):
        if separable_MM[first, m]:
            first = m
            groups.append(groups[-1] + 1)
        else:
            groups.append(groups[-1] if groups else 1)
    return groups


def _interval(values_RM: Array) -> tuple[Array, Array]:
    low_M, high_M = np.quantile(values_RM, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low_M, high_M


def _paired(wide_RM: Array, points_M: Array, a: int, b: int, largest: float) -> tuple[float, float, float]:
    low_1, high_1 = _interval((wide_RM[:, a] - wide_RM[:, b])[:, None])
    low, high = np.clip([low_1[0], high_1[0]], -largest, largest).tolist()
    return float(points_M[a] - points_M[b]), low, high
