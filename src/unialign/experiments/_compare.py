"""Run every entry with every seed, and test the differences."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unialign._checks import suggestion
from unialign.config import CLOSED_FORMS, CompareConfig, ComparisonEntry, TrainConfig, closed_form_of
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.evaluation import METRICS
from unialign.experiments._data import open_store
from unialign.experiments._items import write_items
from unialign.experiments._pool import run_jobs
from unialign.experiments._results import make_results, run_folder, write_json
from unialign.experiments._results_folder import open_run_dir
from unialign.experiments._run import RunRecord, run
from unialign.losses import display_name
from unialign.train import check_fit


@dataclass(frozen=True)
class _Job:
    """Picklable description of a run; the data is opened in the worker process."""

    config: CompareConfig
    key: str
    seed: int
    folder: Path

    def run(self) -> RunRecord:
        config = self.config
        store = open_store(config.data, config.modalities, config.fingerprint)
        train = config.entries[self.key].train.replace(seed=self.seed)
        return run(store, train, self.folder, split=config.split, anchor=config.anchor)


def make_entry(train: TrainConfig) -> ComparisonEntry:
    """Return an entry labeled with its objective or closed form; a note states the InfoNCE warm-up, if any."""
    closed_form = closed_form_of(train)
    if closed_form is not None:
        return ComparisonEntry(label=CLOSED_FORMS[closed_form].label, train=train, note="closed form, not trained")
    ratio = train.infonce_warmup_ratio
    note = f"InfoNCE warmup: first {100 * ratio:.0f} % of the steps" if ratio else ""
    return ComparisonEntry(label=display_name(train.objective), train=train, note=note)


def compare(
    config: CompareConfig,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    on_run: Callable[[str, int, RunRecord], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate every entry with every seed, and write `config.yaml`, `results.json` and the run folders.

    Calling the function again with the same configuration and folder reads finished runs back and resumes the others.

    Examples:
        >>> import unialign as ua
        >>> from unialign.experiments import CompareConfig, make_entry
        >>> entries = {name: make_entry(ua.TrainConfig(objective=name)) for name in ("unialign", "infonce")}
        >>> results = ua.compare(CompareConfig(data="digits", entries=entries), "runs/digits")
        >>> print(results["comparisons"][0])

    Args:
        config: data, entries, seeds and evaluation settings.
        out: results folder.
        workers: number of processes that train in parallel; 1 trains in the current process.
        on_run: function that is called with the entry, seed and record of each finished run.

    Returns:
        The content of `results.json`; `comparisons` contains the paired differences and verdicts.

    Raises:
        ConfigError: the folder contains a different comparison, or a setting does not fit the data.
        DataError: the fingerprint of the data differs from the configuration.
    """
    folder = Path(out)
    store = open_store(config.data, config.modalities, config.fingerprint)
    config = config.replace(fingerprint=store.fingerprint)
    _check(config, store)
    open_run_dir(folder, "comparison", config.to_dict())
    jobs = [_Job(config, key, seed, folder / run_folder(key, seed)) for seed in config.seeds for key in config.entries]
    records: dict[tuple[str, int], RunRecord] = {}
    for job, record in run_jobs(_Job.run, jobs, workers):
        records[job.key, job.seed] = record
        if on_run is not None:
            on_run(job.key, job.seed, record)
    results = make_results(config, store, records, out=folder)
    write_items(folder, store, config.split)
    write_json(folder / "results.json", results)
    return results


def _check(config: CompareConfig, store: EmbeddingStore) -> None:
    # The smallest p-value from R resamples is 2 / (R + 1), and Holm's correction multiplies it by the number of tests.
    least = 40 * sum(metric.primary for metric in METRICS.values()) * (len(config.entries) - 1)
    if config.resamples < least:
        raise ConfigError(
            f"resamples must be at least {least} for {len(config.entries)} objectives, since otherwise no difference "
            f"can be significant after correction; got {config.resamples}; pass resamples={least} (--resamples {least})"
        )
    if config.anchor is not None and config.anchor not in store.modalities:
        known, hint = ", ".join(store.modalities), suggestion(config.anchor, store.modalities)
        raise ConfigError(f"anchor {config.anchor!r} is not a modality of this data set; expected one of {known}{hint}")
    for key, entry in config.entries.items():
        try:
            check_fit(store, entry.train)
        except ConfigError as error:
            raise ConfigError(f"entry {key!r}: {error}") from None
