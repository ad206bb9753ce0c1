"""Jobs of the parts of the study `front`, and the choice of settings from finished trials.

Parts depend on each other: `tuning`, `regimes` and `keep` need the closed form of `start`, and `test` needs the trials.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from research._front_data import DATA, missing_data, open_data
from research._front_jobs import VARIANTS, FrontJob
from research._front_measures import METRICS, log_score
from research._front_objectives import (
    ENTRIES,
    base_config,
    closed_form_settings,
    missing_options,
    trial_settings,
)
from research._front_regimes import REGIMES, continued_rate, regime_config, regimes_of
from research._records import Record
from unialign.config import TrainConfig

__all__ = ["CLOSED", "PARTS", "FrontOptions", "FrontPlan", "trial_score"]

PARTS = ("start", "tuning", "test", "regimes", "keep")
CLOSED = "kernel_gcca"
DEV_RESAMPLES = 300
REGIME_ENTRIES = ("infonce", "unialign", "small_batch", "retrieval", "joint_queries", "classes", "sigmoid")
# Strengths of the decay towards the start in the trials; `plain` has none.
DECAYS = (30.0, 10.0, 100.0, 300.0)


@dataclass(frozen=True, kw_only=True)
class FrontOptions:
    """Options of the study; a smoke run has fewer epochs, trials, splits and seeds.

    In a regime, trials are compared on development split 0, and the best is measured on `regime_splits`.
    """

    data: tuple[str, ...] = tuple(DATA)
    recipes: tuple[str, ...] = ("kernel", "linear")
    entries: tuple[str, ...] = tuple(ENTRIES)
    regimes: tuple[str, ...] = tuple(REGIMES)
    trials: int = 8
    splits: tuple[int, ...] = (0, 1, 2)
    seeds: tuple[int, ...] = tuple(range(10))
    epochs: int | None = None
    resamples: int = 2000
    regime_trials: int = 4
    regime_splits: tuple[int, ...] = (1, 2, 3, 4)
    keep_entries: tuple[str, ...] = ("infonce", "classes")
    keep_trials: int = 4
    keep_splits: tuple[int, ...] = (0, 1)
    keep_seeds: tuple[int, ...] = (0, 3, 6, 9, 12)
    stores: Mapping[str, str] = field(default_factory=dict)


def trial_score(records: list[Record | None], prefix: str = "") -> float:
    """Return the mean score over splits; NaN if a split is missing or failed."""
    if not records or any(record is None or record.failed for record in records):
        return math.nan
    return fmean(
        log_score({name: record.metrics.get(f"{prefix}{name}", math.nan) for name in METRICS})
        for record in records
        if record is not None
    )


def _best(scores: list[float]) -> int | None:
    """Return None if all trials failed."""
    valid = [i for i, score in enumerate(scores) if not math.isnan(score)]
    return max(valid, key=lambda i: scores[i], default=None)


class FrontPlan:
    """Jobs of all parts. Records of finished jobs determine the jobs that depend on them."""

    def __init__(self, options: FrontOptions, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.missing = {name: why for name in options.data if (why := missing_data(name, options.stores))}
        self.data = tuple(name for name in options.data if name not in self.missing)
        self.unavailable = {name: why for name in options.entries if (why := missing_options(name))}
        self.entries = tuple(name for name in options.entries if name not in self.unavailable)
        stores = {name: open_data(name, options.stores) for name in self.data}
        self.fingerprints = {name: store.fingerprint for name, store in stores.items()}
        self.items = {
            name: {split: len(store.rows(split)) for split in ("train", "val", "test")}
            for name, store in stores.items()
        }
        self._read: dict[Path, Record | None] = {}
        self._chosen: dict[tuple[str, str, str], int] = {}
        # Checking the settings of a job takes milliseconds, and the results need each job several times.
        self._auto_jobs: dict[str, FrontJob] = {}
        self._tuning_jobs: dict[tuple[str, str, str, int, int], FrontJob] = {}

    def record(self, job: FrontJob) -> Record | None:
        if self._read.get(job.file) is None:
            if not job.file.exists():
                return None
            self._read[job.file] = job.read_back()
        return self._read[job.file]

    def jobs(self, part: str, data: str) -> list[FrontJob]:
        """Return the jobs whose settings are known; the others need records of an earlier part."""
        return list(getattr(self, f"_{part}")(data))

    # --- closed form ---------------------------------------------------------------------------------------------

    def auto_job(self, data: str) -> FrontJob:
        if data not in self._auto_jobs:
            self._auto_jobs[data] = self._job(data, f"start/{data}-auto", closed_form_settings(DATA[data], {}), k=0)
        return self._auto_jobs[data]

    def start(self, data: str) -> dict[str, Any] | None:
        """Return the settings of kernel GCCA, chosen on development split 0; None if they are not known yet."""
        record = self.record(self.auto_job(data))
        return None if record is None else dict(record.facts["start"])

    def closed_job(self, data: str, k: int | None) -> FrontJob | None:
        if (start := self.start(data)) is None:
            return None
        name = "test" if k is None else f"split{k}"
        config = closed_form_settings(DATA[data], start)
        return self._job(data, f"start/{data}-{name}", config, k=k)

    def _start(self, data: str) -> Iterator[FrontJob]:
        yield self.auto_job(data)
        for k in self.options.splits:
            if (job := self.closed_job(data, k)) is not None:
                yield job

    # --- tuning --------------------------------------------------------------------------------------------------

    def tuning_job(self, data: str, recipe: str, entry: str, trial: int, k: int) -> FrontJob | None:
        key = data, recipe, entry, trial, k
        if key not in self._tuning_jobs:
            if (start := self.start(data)) is None:
                return None
            config = base_config(DATA[data], recipe, entry, start, epochs=self.options.epochs)
            config = config.override({**trial_settings(entry, recipe, trial), "seed": 100 + k})
            file = f"tuning/{data}-{recipe}-{entry}-{trial}-split{k}"
            self._tuning_jobs[key] = self._job(data, file, config, k=k)
        return self._tuning_jobs[key]

    def _tuning(self, data: str) -> Iterator[FrontJob]:
        # Trials are the outer loop, so that an interrupted run has equal budgets.
        for recipe in self.options.recipes:
            for trial in range(self.options.trials):
                for entry in self.entries:
                    found = [self.tuning_job(data, recipe, entry, trial, k) for k in self.options.splits]
                    yield from (job for job in found if job is not None)

    def trials(self, data: str, recipe: str, entry: str) -> list[list[Record | None]]:
        """Return the records of each trial on each split; None where a record is missing."""
        found: list[list[Record | None]] = []
        for trial in range(self.options.trials):
            jobs = [self.tuning_job(data, recipe, entry, trial, k) for k in self.options.splits]
            found.append([None if job is None else self.record(job) for job in jobs])
        return found

    def chosen(self, data: str, recipe: str, entry: str) -> int | None:
        """Return the trial with the best mean score; None unless all trials are finished."""
        if (data, recipe, entry) not in self._chosen:
            trials = self.trials(data, recipe, entry)
            if any(record is None for records in trials for record in records):
                return None
            if (best := _best([trial_score(records) for records in trials])) is None:
                return None
            self._chosen[data, recipe, entry] = best
        return self._chosen[data, recipe, entry]

    # --- test ----------------------------------------------------------------------------------------------------

    def test_job(self, data: str, recipe: str, entry: str, seed: int) -> FrontJob | None:
        start, trial = self.start(data), self.chosen(data, recipe, entry)
        if start is None or trial is None:
            return None
        config = base_config(DATA[data], recipe, entry, start, epochs=self.options.epochs)
        config = config.override({**trial_settings(entry, recipe, trial), "seed": seed})
        return self._job(data, f"test/{data}-{recipe}-{entry}-seed{seed}", config, k=None)

    def _test(self, data: str) -> Iterator[FrontJob]:
        closed = self.closed_job(data, None)
        tuned = [
            job
            for recipe in self.options.recipes
            for seed in self.options.seeds
            for entry in self.entries
            if (job := self.test_job(data, recipe, entry, seed)) is not None
        ]
        if closed is not None and tuned:
            yield closed
        yield from tuned

    # --- regimes -------------------------------------------------------------------------------------------------

    def regime_job(self, data: str, recipe: str, regime: str, entry: str, trial: int, k: int) -> FrontJob | None:
        if (start := self.start(data)) is None:
            return None
        one = REGIMES[regime]
        config, parent = regime_config(data, recipe, entry, regime, k, start, epochs=self.options.epochs)
        settings = trial_settings(entry, recipe, trial, temperatures=one.temperatures)
        if one.continued:
            settings["lr"] = continued_rate(settings, recipe)
        file = f"regimes/{data}-{recipe}-{regime}-{entry}-{trial}-split{k}"
        more = {"fault": one.fault, "queue": one.queue if entry == "infonce" else 0}
        return self._job(
            data,
            file,
            config.override({**settings, "seed": 100 + k}),
            k=k,
            parent=None if parent is None else parent.replace(seed=100 + k),
            **more,
        )

    def regime_entries(self, regime: str) -> tuple[str, ...]:
        only = REGIMES[regime].only
        return tuple(name for name in self.entries if name in (only or REGIME_ENTRIES))

    def regime_trial(self, data: str, recipe: str, regime: str, entry: str) -> int | None:
        jobs = [self.regime_job(data, recipe, regime, entry, trial, 0) for trial in range(self.options.regime_trials)]
        records = [None if job is None else self.record(job) for job in jobs]
        if any(record is None for record in records):
            return None
        return _best([trial_score([record]) for record in records])

    def _regimes(self, data: str) -> Iterator[FrontJob]:
        for recipe in self.options.recipes:
            for regime in regimes_of(data):
                if regime not in self.options.regimes:
                    continue
                for entry in self.regime_entries(regime):
                    trial = self.regime_trial(data, recipe, regime, entry)
                    places = [(i, 0) for i in range(self.options.regime_trials)]
                    places += [(trial, k) for k in self.options.regime_splits if trial is not None]
                    found = [self.regime_job(data, recipe, regime, entry, i, k) for i, k in places]
                    yield from (job for job in found if job is not None)

    # --- training that keeps its start ---------------------------------------------------------------------------

    def keep_job(
        self, data: str, entry: str, decayed: bool, trial: int, *, k: int | None, seed: int
    ) -> FrontJob | None:
        if (start := self.start(data)) is None:
            return None
        config = base_config(DATA[data], "kernel", entry, start, epochs=self.options.epochs)
        config = config.override({**trial_settings(entry, "kernel", trial), "seed": seed})
        kind = "decay" if decayed else "plain"
        place = f"seed{seed}" if k is None else f"split{k}"
        decay = DECAYS[trial] if decayed else 0.0
        file = f"keep/{data}-{entry}-{kind}-{trial}-{place}"
        return self._job(data, file, config, k=k, keep=True, decay_to_start=decay)

    def keep_records(self, data: str, entry: str, decayed: bool, trial: int) -> list[Record | None]:
        jobs = [self.keep_job(data, entry, decayed, trial, k=k, seed=100 + 10 * k) for k in self.options.keep_splits]
        return [None if job is None else self.record(job) for job in jobs]

    def keep_trial(self, data: str, entry: str, decayed: bool, variant: str) -> int | None:
        """Return the trial of a variant with the best score on the held-out development rows."""
        found = [self.keep_records(data, entry, decayed, trial) for trial in range(self.options.keep_trials)]
        if any(record is None for records in found for record in records):
            return None
        return _best([trial_score(records, f"{variant}/") for records in found])

    def keep_entries(self) -> tuple[str, ...]:
        return tuple(name for name in self.options.keep_entries if name in self.entries)

    def _keep(self, data: str) -> Iterator[FrontJob]:
        for entry in self.keep_entries():
            for trial in range(self.options.keep_trials):
                for decayed in (False, True):
                    for k in self.options.keep_splits:
                        if (job := self.keep_job(data, entry, decayed, trial, k=k, seed=100 + 10 * k)) is not None:
                            yield job
            for decayed in (False, True):
                chosen = {self.keep_trial(data, entry, decayed, variant) for variant in VARIANTS}
                for trial in sorted(i for i in chosen if i is not None):
                    for seed in self.options.keep_seeds:
                        if (job := self.keep_job(data, entry, decayed, trial, k=None, seed=seed)) is not None:
                            yield job

    # -------------------------------------------------------------------------------------------------------------

    def _job(self, data: str, file: str, train: TrainConfig, *, k: int | None, **more: Any) -> FrontJob:
        return FrontJob(
            file=self.folder / f"{file}.safetensors",
            data=data,
            stores=self.options.stores,
            fingerprint=self.fingerprints[data],
            k=k,
            train=train,
            resamples=self.options.resamples if k is None else DEV_RESAMPLES,
            **more,
        )
