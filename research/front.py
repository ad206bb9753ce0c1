"""Compare whole fronts of objectives that are tuned with equal budgets, on several data sets, in parts.

    python -m research front --estimate                          trainings and minutes of each part that are left
    python -m research front --part tuning --data emoji --recipe kernel
    python -m research front --part page                         the page, from the records so far

Settings are compared on development splits, which are drawn from the training and validation rows; the trainings do
not even receive test rows. The part `test` then evaluates the chosen settings once. Every training has a record, so a
part continues after an interruption, and test results are never computed a second time.
"""

import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from research._front_data import DATA
from research._front_jobs import work
from research._front_objectives import ENTRIES, RECIPES
from research._front_page import page
from research._front_plan import PARTS, FrontOptions, FrontPlan
from research._front_regimes import REGIMES
from research._front_results import TITLE, progress_rows, write_results
from unialign.cli import chosen_workers, echo, execute, results_folder, shown
from unialign.experiments import run_jobs

__all__ = ["main", "page", "run", "run_part"]

# Seconds of a training on one core, if no record of the part tells it.
_SECONDS = {"start": 20.0, "tuning": 4.0, "test": 4.0, "regimes": 5.0, "keep": 20.0}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return execute("python -m research front", partial(run, options))


def run(options: Namespace) -> int:
    folder = Path("runs/study/front") if options.out is None else options.out
    plan = FrontPlan(_options(options), folder)
    for name, why in {**plan.missing, **plan.unavailable}.items():
        echo(f"left out: {name}, since {why}")
    if options.estimate:
        for line in estimate(plan):
            echo(line)
        return 0
    parts = [*PARTS, "page"] if options.part == "all" else [options.part]
    for part in parts:
        if part == "page":
            # The page has all data sets, since its tests share one correction.
            write_results(FrontPlan(FrontOptions(), folder), folder)
            echo(f"page in {shown(folder / 'page.md')}")
            continue
        for data in plan.data:
            if part != "start":
                run_part(plan, "start", data, 1)
            run_part(plan, part, data, options.workers)
    return 0


def run_part(plan: FrontPlan, part: str, data: str, workers: int | None) -> None:
    """Run the jobs of a part until no further job becomes known."""
    began = time.perf_counter()
    done: set[Path] = set()
    while left := [job for job in plan.jobs(part, data) if job.file not in done and plan.record(job) is None]:
        known = len(left)
        for i, (job, record) in enumerate(run_jobs(work, left, min(chosen_workers(workers, known), known)), 1):
            done.add(job.file)
            seconds = record.facts["cpu_seconds"]
            ended = f"failed: {record.failed}" if record.failed else f"{seconds:.1f} s"
            echo(f"[{i}/{known}] {part} {data}: {job.file.stem}, {ended}")
    if done:
        echo(f"{part} {data}: {len(done)} trainings in {time.perf_counter() - began:.0f} s")


def estimate(plan: FrontPlan) -> list[str]:
    """Return, for each part and data set, the trainings that are left, and their minutes on one core."""
    lines = []
    for part in PARTS:
        for data in plan.data:
            rows = list(progress_rows(plan, part, data))
            done, planned = (sum(row[key] for row in rows) for key in ("done", "planned"))
            records = [record for job in plan.jobs(part, data) if (record := plan.record(job)) is not None]
            seconds = [record.facts["cpu_seconds"] for record in records]
            each = fmean(seconds) if seconds else _SECONDS[part]
            minutes = (planned - done) * each / 60
            at_most = "at most " if part == "keep" else ""
            lines.append(
                f"{part:<8} {data:<10} {done} of {at_most}{planned} trainings done, about {minutes:.0f} min left on "
                f"one core, {each:.1f} s each{'' if seconds else ' (guessed)'}"
            )
    return lines


def _options(options: Namespace) -> FrontOptions:
    whole = FrontOptions()
    return FrontOptions(
        data=tuple(options.data or whole.data),
        recipes=tuple(options.recipe or whole.recipes),
        entries=tuple(options.objectives or whole.entries),
        regimes=tuple(options.regimes or whole.regimes),
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m research front",
        allow_abbrev=False,
        description=TITLE,
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", choices=[*PARTS, "page", "all"], default="all", help="part to run (default: all)")
    parser.add_argument("--data", nargs="+", choices=list(DATA), help="data sets (default: all)")
    parser.add_argument("--recipe", nargs="+", choices=list(RECIPES), help="recipes (default: all)")
    parser.add_argument("--objectives", nargs="+", choices=list(ENTRIES), help="objectives (default: all)")
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), help="regimes (default: all)")
    parser.add_argument("--workers", type=int, help="parallel trainings, one thread each (default: number of cores)")
    parser.add_argument("--estimate", action="store_true", help="print what is left instead of running it")
    parser.add_argument("--out", type=results_folder, help="results folder (default: runs/study/front)")
    return parser
