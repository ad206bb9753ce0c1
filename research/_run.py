"""Run a study, and write its results, figures and pages."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research._figures import failed_sections
from research._jobs import SELECTION, Scheduler, TrainingJob, select_trial
from research._plan import Options, Plan, Study
from research._read import seed_count
from research._records import Record
from research._results import make_results, rounded
from research._terminal import smoke_run_note, tally_lines
from research._validation import check_plan
from research._worker import work
from research.pages import Section, html_page, markdown_page
from unialign._plain_text import count, join_words
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.experiments import open_run_dir, open_store, run_jobs, write_json
from unialign.io import describe_environment, replace_file

__all__ = ["Progress", "answer_lines", "make_plan", "run_study", "trainings", "write_pages"]


@dataclass(frozen=True)
class Progress:
    """`read_back` is true if an earlier call completed the training."""

    done: int
    total: int
    job: TrainingJob
    record: Record
    read_back: bool


OnDone = Callable[[Progress], None]


def make_plan(study: Study, options: Options) -> tuple[Plan, Options, dict[str, EmbeddingStore]]:
    """Write no files."""
    if options.study != study.name:
        raise ConfigError(f"the options belong to the study {options.study!r}, not to {study.name!r}")
    plan = study.plan(options)
    names = list(dict.fromkeys(arm.data for arm in plan.arms))
    stores = {name: open_store(options.stores.get(name, name), None, options.fingerprints.get(name)) for name in names}
    check_plan(plan, options, stores)
    fingerprints = {name: store.fingerprint for name, store in stores.items()}
    return plan, options.replace(fingerprints=fingerprints), stores


def trainings(plan: Plan, options: Options) -> int:
    return Scheduler(plan, options, Path()).total()


def answer_lines(study: Study, results: Mapping[str, Any]) -> list[str]:
    note = smoke_run_note(results["study"]["options"]["epochs"], study.epochs)
    found = tally_lines(results) if study.answer is None else study.answer(results)
    return [*([_sentence(note)] if note else []), *found]


def run_study(
    study: Study, options: Options, out: str | os.PathLike[str], *, workers: int = 1, on_done: OnDone | None = None
) -> dict[str, Any]:
    folder = Path(out)
    plan, options, stores = make_plan(study, options)
    open_run_dir(folder, "study", options.to_dict())
    if study.prepare is not None:
        study.prepare(options, folder, stores, workers)
    jobs = Scheduler(plan, options, folder)
    log = _Log(folder / "log.jsonl", jobs.total(), on_done)
    log.write({"kind": "start", "study": study.name, "workers": workers, **describe_environment()})
    tuning: dict[str, Any] = {}
    records: dict[tuple[str, int], Record] = {}
    for arms in plan.stages():
        trials = _run_all(jobs.trials(arms), workers, log)
        for arm in arms:
            if arm.trials:
                own = {(job.trial, job.seed): record for job, record in trials if job.arm.key == arm.key}
                tuning[arm.key] = select_trial(arm, options.tuning_seeds, own)
                jobs.tuned[arm.key] = arm.trials[tuning[arm.key]["chosen"]]
            elif arm.tuned_as is not None:
                tuning[arm.key] = {"as": arm.tuned_as}
        _run_all(jobs.parents(arms), workers, log)
        records |= {(job.arm.key, job.seed): record for job, record in _run_all(jobs.runs(arms), workers, log)}
    results: dict[str, Any] = rounded(make_results(study, jobs, stores, records, tuning))
    results["study"]["analysis"] = rounded(study.analyse(results))
    write_json(folder / "results.json", results)
    write_pages(study, results, folder)
    log.write({"kind": "end"})
    return results


def write_pages(study: Study, results: dict[str, Any], folder: Path) -> None:
    sections = [*study.page(results), *failed_sections(results)]
    note = smoke_run_note(results["study"]["options"]["epochs"], study.epochs)
    if note:
        sections = [Section("smoke-run", "Smoke run", [_sentence(note)]), *sections]
    for section in sections:
        for figure in section.figures:
            if not figure.name.startswith(f"{study.name}-"):
                raise DataError(f"the name of a figure must start with {study.name}-, got {figure.name!r}")
            replace_file(folder / "figures" / f"{figure.name}.svg", str(figure.drawing) + "\n")
    replace_file(folder / "page.md", markdown_page(study.title, sections))
    page = html_page(
        study.title,
        kicker=f"study: {study.name}",
        facts=[*_facts(results), *([note] if note else [])],
        sections=sections,
        reproduce=results["reproduce"],
    )
    replace_file(folder / "report.html", page)


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _facts(results: dict[str, Any]) -> list[str]:
    study = results["study"]
    trials = max((len(t.get("trials", ())) for t in study["tuning"].values()), default=0)
    chances = [f"{100 / about['test_items']:.2g} %" for about in study["data"].values()]
    return [
        " and ".join(study["data"]),
        f"{count(len(results['objectives']), 'arm')} × {seed_count(results)}",
        f"{trials} trials per arm on the validation split" if trials else "no tuning",
        f"{study['trainings']} trainings",
        f"chance of R@1 {join_words(chances)}",
    ]


def _run_all(jobs: Sequence[TrainingJob], workers: int, log: "_Log") -> list[tuple[TrainingJob, Record]]:
    """Return all jobs with their records, previously finished ones first."""
    earlier = [(job, job.read_back()) for job in jobs]
    finished = [(job, record) for job, record in earlier if record is not None]
    for job, record in finished:
        log.done(job, record, read_back=True)
    left = [job for job, record in earlier if record is None]
    for job, record in run_jobs(work, left, min(workers, max(1, len(left)))):
        finished.append((job, record))
        log.done(job, record, read_back=False)
    return finished


class _Log:
    def __init__(self, path: Path, total: int, on_done: OnDone | None) -> None:
        self.path, self.total, self.count, self.on_done = path, total, 0, on_done

    def done(self, job: TrainingJob, record: Record, *, read_back: bool) -> None:
        self.count += 1
        if not read_back:
            self.write(
                {
                    "kind": job.purpose,
                    "arm": job.arm.key,
                    "seed": job.seed,
                    "file": job.file.name,
                    SELECTION: record.metrics.get(SELECTION),
                    "seconds": record.facts.get("seconds"),
                    "failed": record.failed,
                }
            )
        if self.on_done is not None:
            self.on_done(Progress(self.count, self.total, job, record, read_back))

    def write(self, line: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise DataError(f"cannot write the log {self.path}: {error.strerror or error}") from error
