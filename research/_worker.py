"""What a worker process does: one training of one arm, measured, written to its file."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from research._measures import take, values_of
from research._plan import Arm, DataTransform, EvalHook
from research._records import Record, read_record, write_record
from research._transforms import changed, describe
from unialign.data import EmbeddingStore
from unialign.errors import NonFiniteError
from unialign.evaluation import METRICS, Statistic, resample
from unialign.experiments import embed_split, evaluate_split, open_store
from unialign.space import Space
from unialign.train import EvalCallback, HealthWarning, TrainConfig, fit, training_steps

__all__ = ["Job", "work"]

# What a page may show of a direction; all metrics of up to 72 directions would make results of megabytes.
_PER_DIRECTION = "recall@1"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as plain values: processes receive copies, and open the data themselves.

    Attributes:
        purpose: `trial` chooses settings; `start` makes a space that trials of other arms continue; `run` is a result.
        split: rows that are evaluated: never "test" unless it is a run.
        file: where the record goes.
        trial: which of the arm's trials this is.
        space: where the space goes, for an arm that others continue.
        start: the folder of the space to continue.
        start_identity: what that space is the result of.
    """

    arm: str
    label: str
    purpose: Literal["trial", "start", "run"]
    data: str
    fingerprint: str
    train: TrainConfig
    split: str
    resamples: int
    keep: tuple[str, ...]
    file: Path
    trial: int | None = None
    anchor: str | None = None
    change: DataTransform | None = None
    look: EvalHook | None = None
    space: Path | None = None
    start: Path | None = None
    start_identity: dict[str, Any] | None = None

    @property
    def seed(self) -> int:
        return self.train.seed

    def identity(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON."""
        look = self.look
        return {
            "fingerprint": self.fingerprint,
            "train": self.train.to_dict(),
            "split": self.split,
            "anchor": self.anchor,
            "change": describe(self.change),
            "start": self.start_identity,
            "look": look and {**vars(look), "arguments": dict(look.arguments)},
            "resamples": self.resamples if self.purpose == "run" else None,
            "keep": list(self.keep) if self.purpose == "run" else None,
        }

    def read_back(self) -> Record | None:
        """The record of an earlier run of this very job."""
        record = read_record(self.file, self.identity())
        lost = self.space is not None and not (self.space / "config.json").exists()
        return None if record is None or (lost and not record.failed) else record


def work(job: Job) -> Record:
    """Train, measure, write. A training that ends in numbers that are not finite is a result too: it failed."""
    store = open_store(job.data, job.train.modalities, job.fingerprint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)  # they are in the record
        try:
            record = _measured(job, store)
        except NonFiniteError as error:
            record = Record(metrics={}, failed=str(error))
    write_record(job.file, job.identity(), record)
    return record


def _measured(job: Job, store: EmbeddingStore) -> Record:
    looks: list[dict[str, float]] = []
    last: dict[str, Any] = {}

    def look(step: int, space: Space) -> None:
        last.clear()
        if job.look is not None:
            folder = job.file.parent.parent
            last.update(take(space, store, job.look.split, job.look.name, job.look.arguments, folder=folder))
            looks.append({"step": step, **values_of(last, len(store.rows(job.look.split)))})

    steps = training_steps(store, job.train)
    result = fit(
        changed(store, job.change, job.seed),
        job.train,
        progress="none",
        init_from=None if job.start is None else Space.from_pretrained(job.start),
        eval_callback=None if job.look is None else EvalCallback(job.look.steps(steps), look),
    )
    if job.space is not None:
        result.space.save_pretrained(job.space)
    evaluation = evaluate_split(embed_split(result.space, store, job.split), store, job.split, anchor=job.anchor)
    metrics = evaluation.metrics | {name: value for name, value in (looks or [{}])[-1].items() if name != "step"}
    statistics: dict[str, Statistic] = {
        name: statistic
        for name, statistic in evaluation.statistics.items()
        if METRICS[name].headline == "yes" or name in job.keep
    }
    if job.look is not None and job.look.split == job.split:
        statistics |= {name: value for name, value in last.items() if not isinstance(value, int | float)}
    # Here, not in the parent, so that the resampling is done in parallel; the draws depend on the items alone.
    resampled = {}
    if job.purpose == "run":
        resampled = resample(
            {name: (statistic, metrics[name]) for name, statistic in statistics.items()},
            store.groups[store.rows(job.split)],
            resamples=job.resamples,
        )
    return Record(
        metrics=metrics,
        directions={
            name: {_PER_DIRECTION: values[_PER_DIRECTION]}
            for name, values in evaluation.directions.items()
            if "+" not in name
        },
        looks=looks,
        facts={
            "seconds": float(result.history[-1]["seconds"]),
            "steps": steps,
            "parameters": sum(p.numel() for p in result.space.parameters() if p.requires_grad),
            "temperature": result.history[-1]["temperature"],
            "warnings": [vars(warning) for warning in result.warnings],
        },
        resampled=resampled,
    )


def job_of(arm: Arm, **details: Any) -> Job:
    """A job with what the arm says; `details` are the rest."""
    return Job(arm=arm.key, label=arm.label, anchor=arm.anchor, change=arm.change, **details)
