"""Implementation of `unialign tune`."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unialign._plain_text import duration, percent
from unialign.cli._console import chosen_workers, echo, shown
from unialign.config import HyperparameterSearchConfig
from unialign.experiments import RunRecord, prepare_data
from unialign.report import write_tuning_report
from unialign.tuning import Trial, tune


def tune_data(sources: Sequence[str], config: HyperparameterSearchConfig, options: argparse.Namespace) -> int:
    out: Path = options.out
    data = prepare_data(sources, out, "tuning", id=options.id)
    # More processes than `lag` have no trials to run.
    workers = min(chosen_workers(options.workers, config.limit or config.lag), config.lag)
    budget = [] if config.limit is None else [f"{config.limit} trials"]
    budget += [] if config.minutes is None else [f"{config.minutes:g} min"]
    echo(f"{data}: {' and '.join(budget)}, {workers} at a time, for {', '.join(config.metric)}, into {shown(out)}")
    started = time.perf_counter()
    with _continuing(out):
        found = tune(
            data,
            config,
            out=out,
            workers=workers,
            device=options.device,
            on_trial=trial_line(config),
            on_run=_run_line,
        )
    report = write_tuning_report(out)
    echo()
    echo(found.text())
    echo()
    echo(f"{duration(time.perf_counter() - started)}. Report: {shown(report)}")
    echo(f"Space: {shown(out / 'space')}. Settings: unialign train --config {shown(out / 'train.yaml')}")
    return 0


@contextmanager
def _continuing(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        kept = f"finished trials are kept in {shown(out)}; run the same command again to continue"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None


def trial_line(config: HyperparameterSearchConfig, *, prefix: str = "") -> Callable[[Trial], None]:
    """Return a function that prints a line for each finished trial."""

    def line(trial: Trial) -> None:
        names = [name for name in ("recall@1", "joint_recall@1", "label_map", *config.metric) if name in trial.metrics]
        values = ", ".join(_value(name, trial.metrics[name]) for name in dict.fromkeys(names) if name != "auto")
        seed = "" if trial.seed == config.seed else f", seed {trial.seed}"
        state = "" if trial.state == "complete" else f" [{trial.state}]"
        echo(f"{prefix}[{trial.number}] {trial.name}{seed}: {values}{state}, {duration(trial.seconds)}")

    return line


def _value(name: str, value: float) -> str:
    return f"{name} {percent(value)}" if 0 <= value <= 1 else f"{name} {value:.3f}"


def _run_line(key: str, seed: int, record: RunRecord) -> None:
    echo(f"final run, {key}, seed {seed}: finished")
