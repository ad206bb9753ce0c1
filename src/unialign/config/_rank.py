"""Settings of a ranking of models by stored results."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._ranges import RESAMPLES, integer, not_empty


@dataclass(frozen=True, kw_only=True)
class RankConfig(Config):
    """A ranking of models by the results that mteb stored."""

    kind: ClassVar[str] = "ranking"

    results: tuple[str, ...] = setting(REQUIRED, "folders with mteb results: MODEL/REVISION/TASK.json", not_empty)
    models: tuple[str, ...] | None = setting(None, "models to rank (default: all)", not_empty)
    tasks: tuple[str, ...] | None = setting(
        None, "tasks to use; models that lack a task are left out (default: the tasks that all models have)", not_empty
    )
    splits: tuple[str, ...] | None = setting(
        None, "splits to average (default: test, or all splits of a task without `test`)", not_empty
    )
    qrels: str | None = setting(
        None, "folder with the relevant documents of the tasks, TASK.json or TASK.tsv, needed to score single queries"
    )
    statistic: Literal["mean", "borda"] = setting(
        "mean", "`mean` averages scores over tasks, `borda` averages the fraction of the other models that score lower"
    )
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
    seed: int = setting(0, "seed of the bootstrap", integer(0))
