"""Command `python -m research NAME`, which runs a study of the paper's claims and writes its page and figures."""

import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from research import COSTS, PARTED, STUDIES, load_study
from research._plan import Options
from research._run import Progress, answer_lines, make_plan, run_study, trainings
from research._terminal import smoke_run_note
from unialign.cli import chosen_workers, echo, execute, results_folder, shown
from unialign.errors import ConfigError

__all__ = ["main", "run"]

_EPILOG = (
    "studies:\n"
    + "".join(
        f"  {name:<14}{summary}\n{'':<16}{COSTS[name][0]} trainings, about {COSTS[name][1]} min on 2 cores\n"
        for name, summary in STUDIES.items()
    )
    + "".join(
        f"  {name:<14}{summary}\n{'':<16}runs in parts, see python -m research {name} --help\n"
        for name, summary in PARTED.items()
    )
    + """
example:
  python -m research ablation --epochs 4 --seeds 0 1 --out runs/quick     a smoke run
  python -m research ablation                                             the whole study; continues if interrupted
  python -m research --config runs/study/ablation/config.yaml --out runs/again"""
)


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in PARTED:
        return int(import_module(f"research.{given[0]}").main(given[1:]))
    options = _parser().parse_args(arguments)
    return execute("python -m research", partial(run, options))


def run(options: Namespace) -> int:
    chosen = _options(options)
    study = load_study(chosen.study)
    out = Path("runs") / "study" / study.name if options.out is None else options.out
    plan, chosen, _ = make_plan(study, chosen)
    total = trainings(plan, chosen)
    workers = chosen_workers(options.workers, total)
    echo(f"{study.name}: {study.title}")
    seeds = " ".join(map(str, chosen.seeds))
    echo(f"{len(plan.arms)} arms, seeds {seeds}, {total} trainings in {workers} workers, results in {shown(out)}")
    if note := smoke_run_note(chosen.epochs, study.epochs):
        echo(note)
    started = time.perf_counter()
    try:
        with _Bar() as bar:
            results = run_study(study, chosen, out, workers=workers, on_done=bar)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; run the same command to continue from the finished trainings in {shown(out)}"
        ) from None
    for arm, message in results["study"]["failed"].items():
        echo(f"failed: {results['objectives'][arm]['label']}, {message}")
    echo()
    for line in answer_lines(study, results):
        echo(line)
    echo()
    echo(f"finished in {time.perf_counter() - started:.0f} s, report in {shown(out / 'report.html')}")
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m research",
        allow_abbrev=False,
        description="Run a study of the objectives: many trainings with several seeds and equal tuning budgets.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of the studies below")
    parser.add_argument("--config", type=Path, help="config.yaml of an earlier run; options given here take precedence")
    parser.add_argument("--epochs", type=int, help="epochs of every training (default: defined by the study)")
    parser.add_argument(
        "--seeds", nargs="+", action="extend", type=int, metavar="S", help="one run per seed (default: 0 1 2 3 4)"
    )
    parser.add_argument(
        "--workers", type=int, help="number of parallel trainings, one thread each (default: number of cores)"
    )
    parser.add_argument("--out", type=results_folder, help="results folder (default: runs/study/NAME)")
    return parser


def _options(options: Namespace) -> Options:
    if options.config:
        chosen = Options.read(options.config)
        if options.name not in (None, chosen.study):
            raise ConfigError(f"{options.config} belongs to the study {chosen.study!r}, not to {options.name!r}")
    elif options.name is None:
        raise ConfigError("a study, such as `ablation`, or --config is required; --help lists the studies")
    else:
        chosen = Options(study=options.name)
    changes = {"seeds": options.seeds and tuple(options.seeds), "epochs": options.epochs}
    return chosen.replace(**{key: value for key, value in changes.items() if value is not None})


class _Bar:
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
        echo(f"[{progress.done}/{progress.total}] {job.arm.label} ({job.arm.key}), {what}: {ended}")

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()


if __name__ == "__main__":
    sys.exit(main())
