"""A comparison: every entry with every seed, in one or several processes, then intervals and verdicts."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from unialign._files import write_yaml
from unialign.data import EmbeddingStore, load
from unialign.errors import ConfigError
from unialign.experiments._assets import write_items
from unialign.experiments._config import CompareConfig, read_yaml
from unialign.experiments._results import describe_data, describe_environment, describe_metrics, make_folder, write_json
from unialign.experiments._run import RunRecord, run
from unialign.experiments._summary import LEVEL, compare_entries, summarise
from unialign.train import TrainConfig

__all__ = ["compare", "make_results", "open_store"]


@dataclass(frozen=True)
class _Job:
    """What a worker process needs: only plain values, since it opens the data itself."""

    key: str
    seed: int
    data: str
    modalities: tuple[str, ...] | None
    fingerprint: str
    train: TrainConfig
    folder: Path
    split: str
    anchor: str | None


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
    _claim(folder, config)
    jobs = [
        _Job(
            key=key,
            seed=seed,
            data=config.data,
            modalities=config.modalities,
            fingerprint=store.fingerprint,
            train=dataclasses.replace(entry.train, seed=seed),
            folder=folder / "runs" / f"{key}-seed{seed}",
            split=config.split,
            anchor=config.anchor,
        )
        for seed in config.seeds
        for key, entry in config.entries.items()
    ]
    records: dict[tuple[str, int], RunRecord] = {}
    for job, record in _execute(jobs, workers):
        records[job.key, job.seed] = record
        if on_run is not None:
            on_run(job.key, job.seed, record)
    results = make_results(config, store, records, folders={(j.key, j.seed): f"runs/{j.folder.name}" for j in jobs})
    write_items(folder, store, config.split)
    write_json(folder / "results.json", results)
    return results


def open_store(data: str, modalities: tuple[str, ...] | None, fingerprint: str | None) -> EmbeddingStore:
    """The store with its chosen columns; DataError when it is another revision than the one asked for."""
    store = load(data)
    if fingerprint is not None:
        store.require(fingerprint)
    return store if modalities is None else store.select(modalities)


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
        folders: (entry, seed) -> where it stands, relative to the results.
        command: that repeats this from the folder's `config.yaml`.
        settings: how a space was trained that this run only evaluated; None: the entries' settings.
    """
    rows = store.rows(config.split)
    evaluations = {key: [records[key, seed].evaluation for seed in config.seeds] for key in config.entries}
    summary, resampled = summarise(evaluations, store.group[rows], resamples=config.resamples)
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
            "tests": "two-sided paired bootstrap, Holm-corrected over headline metrics x rivals",
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
    """Make the folder this comparison's own, or find that it is already; anything else in it is left alone."""
    path = folder / "config.yaml"
    if path.exists():
        if read_yaml(path) != config.to_dict():
            raise ConfigError(
                f"{folder} holds another comparison (its config.yaml differs); choose another --out or delete it"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no comparison; choose another --out")
    make_folder(folder)
    write_yaml(path, config.to_dict())


def _execute(jobs: list[_Job], workers: int) -> Iterator[tuple[_Job, RunRecord]]:
    if workers <= 1:
        for job in jobs:
            yield job, _work(job)
        return
    # Spawned, not forked: a forked copy of a process that has used OpenMP may hang.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(workers,)
    )
    try:
        pending = {pool.submit(_work, job): job for job in jobs}
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield pending.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(workers: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    # A worker would wait for ever once the command itself is killed; SIGTERM makes a running fit checkpoint first.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _work(job: _Job) -> RunRecord:
    store = open_store(job.data, job.modalities, job.fingerprint)
    return run(store, job.train, job.folder, split=job.split, anchor=job.anchor)
