"""Compare objectives: run every entry with every seed, in one or several processes, then test the differences."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unialign.config import CompareConfig, Entry, TrainConfig
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.evaluation import METRICS
from unialign.experiments._data import open_store
from unialign.experiments._items import write_items
from unialign.experiments._pool import run_jobs
from unialign.experiments._results import describe_data, describe_metrics, write_json
from unialign.experiments._run import RunRecord, run
from unialign.experiments._run_dir import open_run_dir
from unialign.experiments._summary import LEVEL, compare_entries, summarise
from unialign.io import describe_environment, write_yaml
from unialign.losses import display_name
from unialign.train import check_fit

__all__ = ["compare", "make_entry", "make_results"]


@dataclass(frozen=True)
class _Job:
    """One run of a comparison, in plain values, since a worker process opens the data itself."""

    config: CompareConfig
    key: str
    seed: int
    folder: Path

    def run(self) -> RunRecord:
        config = self.config
        store = open_store(config.data, config.modalities, config.fingerprint)
        train = config.entries[self.key].train.replace(seed=self.seed)
        return run(store, train, self.folder, split=config.split, anchor=config.anchor)


def make_entry(train: TrainConfig) -> Entry:
    """An entry labelled by its objective, with a note where InfoNCE trains first."""
    ratio = train.infonce_warmup_ratio
    note = f"warm start: first {100 * ratio:.0f} % of the steps with InfoNCE" if ratio else ""
    return Entry(label=display_name(train.objective), train=train, note=note)


def compare(
    config: CompareConfig,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    on_run: Callable[[str, int, RunRecord], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate every entry with every seed, and write `config.yaml`, `results.json` and the run folders.

    Called again with the same configuration and folder it continues: finished runs are read back, others resume.

    Args:
        config: what to compare.
        out: results folder.
        workers: processes that train at the same time; 1 trains in this process.
        on_run: called with entry, seed and record as each run ends.

    Returns:
        The content of `results.json`; `comparisons` holds the paired differences and verdicts.

    Raises:
        ConfigError: the folder holds another comparison, or a setting does not fit the data.
        DataError: another revision of the data than the configuration names.
    """
    folder = Path(out)
    store = open_store(config.data, config.modalities, config.fingerprint)
    config = config.replace(fingerprint=store.fingerprint)
    _check(config, store)
    _claim(folder, config)
    jobs = [
        _Job(config, key, seed, folder / "runs" / f"{key}-seed{seed}")
        for seed in config.seeds
        for key in config.entries
    ]
    records: dict[tuple[str, int], RunRecord] = {}
    for job, record in run_jobs(_Job.run, jobs, workers):
        records[job.key, job.seed] = record
        if on_run is not None:
            on_run(job.key, job.seed, record)
    results = make_results(config, store, records, folders={(j.key, j.seed): f"runs/{j.folder.name}" for j in jobs})
    write_items(folder, store, config.split)
    write_json(folder / "results.json", results)
    return results


def make_results(
    config: CompareConfig,
    store: EmbeddingStore,
    records: Mapping[tuple[str, int], RunRecord],
    *,
    folders: Mapping[tuple[str, int], str],
    command: Literal["compare", "train", "evaluate"] = "compare",
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `results.json` from finished runs.

    Args:
        config: entries, seeds, split and bootstrap.
        store: the evaluated data.
        records: (entry, seed) -> finished run.
        folders: (entry, seed) -> folder of the run, relative to the results.
        command: the command that repeats this from the folder's `config.yaml`.
        settings: training settings of a space that this run only evaluated; None: the entries' settings.
    """
    rows = store.rows(config.split)
    evaluations = {key: [records[key, seed].evaluation for seed in config.seeds] for key in config.entries}
    summary, resampled = summarise(evaluations, store.groups[rows], resamples=config.resamples)
    first = next(iter(config.entries))
    any_run = evaluations[first][0]
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": describe_data(store, split=config.split, test_items=len(rows)),
        "protocol": {
            "name": "cross-modal retrieval of unseen items, cosine, every ordered pair of modalities",
            "k": [1, 5, 10],
            "recall": "hit rate: share of queries with a positive among the first k",
            "ties": "expected",
            "pool": len(rows),
            "chance_recall@1": 1 / len(rows),
            "directions": sum("+" not in name for name in any_run.directions),
            "seeds": list(config.seeds),
            "bootstrap": {
                "resamples": config.resamples,
                "level": LEVEL,
                "unit": "groups of near-duplicate items",
                "seeds": "variance of the mean over seeds is added",
            },
            "tests": "two-sided paired bootstrap, Holm-corrected over primary metrics x baselines",
            "conflict_anchor": config.anchor,
            "selection": config.selection,
        },
        "objectives": {
            key: {
                "label": entry.label,
                "note": entry.note,
                "settings": entry.train.to_dict() if settings is None else dict(settings),
                "parameters": records[key, config.seeds[0]].parameters,
            }
            for key, entry in config.entries.items()
        },
        "metrics": {name: text for name, text in describe_metrics().items() if name in summary[first]},
        "runs": [
            {
                "objective": key,
                "seed": seed,
                "metrics": record.evaluation.metrics,
                "directions": record.evaluation.directions,
                "seconds": record.seconds,
                "warnings": record.warnings,
                "folder": folders[key, seed],
            }
            for (key, seed), record in sorted(
                records.items(), key=lambda item: (list(config.entries).index(item[0][0]), item[0][1])
            )
        ],
        "summary": summary,
        "reproduce": f"unialign {command} --config config.yaml --out again",
        "comparisons": compare_entries(first, evaluations, resampled),
    }


def _claim(folder: Path, config: CompareConfig) -> None:
    """Write the configuration into a new folder, or check that of an existing one."""
    found = open_run_dir(folder, "comparison")
    if found is None:
        write_yaml(folder / "config.yaml", config.to_dict())
    elif found != config.to_dict():
        raise ConfigError(
            f"{folder} holds another comparison (its config.yaml differs); choose another --out or delete it"
        )


def _check(config: CompareConfig, store: EmbeddingStore) -> None:
    """Raise ConfigError for settings that do not fit, before anything is written or trained."""
    # The smallest p of R resamples is 2 / (R + 1), and Holm multiplies it by the number of tests.
    least = 40 * sum(metric.primary for metric in METRICS.values()) * (len(config.entries) - 1)
    if config.resamples < least:
        raise ConfigError(
            f"resamples must be at least {least} for {len(config.entries)} objectives, or no difference could be "
            f"significant after correction; got {config.resamples}"
        )
    if config.anchor is not None and config.anchor not in store.modalities:
        raise ConfigError(f"anchor {config.anchor!r} is no modality; expected one of {', '.join(store.modalities)}")
    for key, entry in config.entries.items():
        try:
            check_fit(store, entry.train)
        except ConfigError as error:
            raise ConfigError(f"entry {key!r}: {error}") from None
