"""Run a training job in a worker process, and write its record."""

import warnings
from typing import Any

from research._jobs import TrainingJob
from research._measures import measure, to_numbers
from research._records import Record, write_record
from research._transforms import transformed
from unialign.data import EmbeddingStore
from unialign.errors import NonFiniteError
from unialign.evaluation import METRICS, Statistic, resample
from unialign.experiments import embed_split, evaluate_split, open_store
from unialign.space import Space
from unialign.train import EvalCallback, HealthWarning, fit, training_steps

__all__ = ["work"]

# The metric that is recorded for each direction. All metrics of up to 72 directions would take megabytes.
_PER_DIRECTION = "recall@1"


def work(job: TrainingJob) -> Record:
    """NonFiniteError is recorded as a failure."""
    store = open_store(job.data, job.train.modalities, job.fingerprint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)  # The warnings are stored in the record.
        try:
            record = _train_and_measure(job, store)
        except NonFiniteError as error:
            record = Record(metrics={}, failed=str(error))
    write_record(job.file, job.settings(), record)
    return record


def _train_and_measure(job: TrainingJob, store: EmbeddingStore) -> Record:
    hook = job.eval_hook
    evaluations: list[dict[str, float]] = []
    last: dict[str, Any] = {}

    def evaluate(step: int, space: Space) -> None:
        last.clear()
        if hook is not None:
            last.update(measure(space, store, hook, study_folder=job.file.parent.parent))
            evaluations.append({"step": step, **to_numbers(last, len(store.rows(hook.split)))})

    steps = training_steps(store, job.train)
    result = fit(
        transformed(store, job.arm.transform, job.seed),
        job.train,
        progress="none",
        init_from=None if job.parent is None or job.parent.space is None else Space.from_pretrained(job.parent.space),
        eval_callback=None if hook is None else EvalCallback(hook.steps(steps), evaluate),
    )
    if job.space is not None:
        result.space.save_pretrained(job.space)
    evaluation = evaluate_split(embed_split(result.space, store, job.split), store, job.split, anchor=job.arm.anchor)
    metrics = dict(evaluation.metrics)
    if evaluations:
        metrics |= {name: value for name, value in evaluations[-1].items() if name != "step"}
    resampled = {}
    if job.purpose == "run":
        statistics: dict[str, Statistic] = {
            name: statistic
            for name, statistic in evaluation.statistics.items()
            if METRICS[name].primary or name in job.keep
        }
        if hook is not None and hook.split == job.split:
            statistics |= {name: value for name, value in last.items() if not isinstance(value, int | float)}
        # Resample in the workers, which run in parallel. The resamples depend only on the items.
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
        evaluations=evaluations,
        facts={
            "seconds": float(result.history[-1]["seconds"]),
            "steps": steps,
            "parameters": sum(p.numel() for p in result.space.parameters() if p.requires_grad),
            "temperature": result.history[-1].get("temperature"),
            "warnings": [vars(warning) for warning in result.warnings],
        },
        resampled=resampled,
    )
