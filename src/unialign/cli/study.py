"""`unialign study NAME`: a question, many trainings, a page with figures."""

import sys
import time
from argparse import Namespace
from pathlib import Path

from tqdm import tqdm

from unialign.cli._console import chosen_workers, say, shown
from unialign.errors import ConfigError
from unialign.experiments import read_yaml
from unialign.studies import load_study
from unialign.studies._answer import quick_look
from unialign.studies._plan import Options
from unialign.studies._study import Progress, answer_lines, planned, run_study, trainings

__all__ = ["run"]


def run(options: Namespace) -> int:
    chosen = _options(options)
    study = load_study(chosen.study)
    out = Path("runs") / "study" / study.name if options.out is None else options.out
    plan, chosen, _ = planned(study, chosen)
    total = trainings(plan, chosen)
    workers = chosen_workers(options.workers, total)
    say(f"{study.name}: {study.title}")
    seeds = " ".join(map(str, chosen.seeds))
    say(f"{len(plan.arms)} arms, seeds {seeds}, {total} trainings, {workers} at a time, into {shown(out)}")
    if quick := quick_look(chosen.epochs, study.epochs):
        say(quick)
    started = time.perf_counter()
    try:
        with _Bar() as bar:
            results = run_study(study, chosen, out, workers=workers, on_done=bar)
    except KeyboardInterrupt:
        kept = f"finished trainings are kept in {shown(out)}, the same command continues"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None
    for arm, message in results["study"]["failed"].items():
        say(f"failed: {results['objectives'][arm]['label']}, {message}")
    say()
    for line in answer_lines(study, results):
        say(line)
    say()
    say(f"{time.perf_counter() - started:.0f} s. Report: {shown(out / 'report.html')}")
    return 0


def _options(options: Namespace) -> Options:
    """What the file says, if one is given, and over it what the command line does."""
    if options.config:
        chosen = Options.from_dict(read_yaml(options.config), source=str(options.config))
        if options.name not in (None, chosen.study):
            raise ConfigError(f"{options.config} is of the study {chosen.study!r}, not {options.name!r}")
    elif options.name is None:
        raise ConfigError("name a study, `ablation` for one, or give --config; --help lists them")
    else:
        chosen = Options(study=options.name)
    changes = {"seeds": options.seeds and tuple(options.seeds), "epochs": options.epochs}
    return chosen.replace(**{key: value for key, value in changes.items() if value is not None})


class _Bar:
    """Says each finished training; on a terminal a bar shows how many are left."""

    def __init__(self) -> None:
        self.bar = tqdm(unit="training", disable=not sys.stderr.isatty(), leave=False)

    def __call__(self, progress: Progress) -> None:
        self.bar.total = progress.total
        self.bar.update()
        if progress.read_back:
            return
        job, record = progress.job, progress.record
        what = f"trial {job.trial + 1}" if job.trial is not None else f"seed {job.seed}"
        ended = f"failed: {record.failed}"
        if not record.failed:
            ended = f"{record.facts['seconds']:.1f} s, R@1 {100 * record.metrics['recall@1']:.1f} %"
        say(f"[{progress.done}/{progress.total}] {job.label} ({job.arm}), {what}: {ended}")

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
